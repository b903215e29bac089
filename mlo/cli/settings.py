"""Settings on the command line: one option for every field of a configuration."""

from __future__ import annotations

import dataclasses
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlo.cli.words import help_text, members, metavar, nested_model, words
from mlo.errors import ConfigurationError

Presets = Mapping[str, Mapping[str, Any]]
"""Name -> settings that go before the defaults."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a configuration, or of a model inside it.

    Attributes:
        path: names of the fields that lead to it.
        field: what pydantic knows about it.
        default: its value where it is not given.
    """

    path: tuple[str, ...]
    field: FieldInfo
    default: Any

    @property
    def flag(self) -> str:
        """Its option."""
        return "--" + ".".join(self.path).replace("_", "-")

    @property
    def optional(self) -> bool:
        """Whether it may be `None`."""
        return types.NoneType in members(self.field.annotation)


class SettingOption(click.Option):
    """The option of a setting. Its value stays text: pydantic reports all that does not fit."""

    def __init__(self, setting: Setting, number: int) -> None:
        super().__init__(
            # The second one is the name inside click, which takes no dots.
            [setting.flag, f"setting_{number}"],
            metavar=metavar(setting.field.annotation),
            help=help_text(setting.field, setting.default),
            shell_complete=_completer(words(setting.field.annotation)),
        )
        self.setting = setting


def settings_of(model: type[BaseModel]) -> Iterator[Setting]:
    """The settings of a model, in the order of its fields, with those of the models inside."""
    defaults = {name: default_of(field) for name, field in model.model_fields.items()}
    yield from _settings(model, defaults, (), ())


def setting_options(
    model: type[BaseModel], presets: Presets, taken: set[str]
) -> list[click.Parameter]:
    """Make the options that take settings.

    Args:
        model: the configuration.
        presets: those that may be chosen.
        taken: flags that the command has already.

    Raises:
        ConfigurationError: a field has the name of an option of the command.
    """
    found: list[click.Parameter] = [_config(), _keys()]
    if presets:
        found.insert(0, _preset(presets))
    taken = taken.union(*(option.opts for option in found))
    for number, setting in enumerate(settings_of(model)):
        if setting.flag in taken:
            name = ".".join(setting.path)
            raise ConfigurationError(
                f"{model.__name__}.{name}: expected a name that the command line has not taken, "
                f"got '{name}', which would be its option {setting.flag}; rename the field"
            )
        found.append(SettingOption(setting, number))
    return found


def _settings(
    model: type[BaseModel],
    defaults: Mapping[str, Any],
    above: tuple[str, ...],
    outer: tuple[type[BaseModel], ...],
) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        path, default = (*above, name), defaults[name]
        inner = nested_model(field.annotation)
        if inner is None or any(inner is one for one in (*outer, model)):
            yield Setting(path, field, default)
            continue
        if len(members(field.annotation)) > 1:  # it may be None as well
            yield Setting(path, field, default)
        known = vars(default) if isinstance(default, inner) else {}
        fresh = {key: default_of(part) for key, part in inner.model_fields.items()}
        yield from _settings(inner, {**fresh, **known}, path, (*outer, model))


def default_of(field: FieldInfo) -> Any:
    """The default of a field."""
    return field.get_default(call_default_factory=True, validated_data={})


def _preset(presets: Presets) -> click.Option:
    return click.Option(
        ["--preset"],
        metavar="NAME",
        help=f"a set of settings: {', '.join(presets)}",
        shell_complete=_completer(list(presets)),
    )


def _config() -> click.Option:
    return click.Option(
        ["--config"],
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=pathlib.Path),
        help="read settings from a TOML file, or from JSON where the name ends so",
    )


def _keys() -> click.Option:
    return click.Option(
        ["--set"],
        metavar="KEY=VALUE",
        multiple=True,
        help="a setting by its key, with dots into nested ones; may be given several times",
    )


_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def _completer(known: list[str]) -> _Completer:
    def complete(
        context: click.Context, option: click.Parameter, begun: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(word) for word in known if word.startswith(begun)]

    return complete
