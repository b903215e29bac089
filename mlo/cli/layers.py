"""The settings of a command line, merged: defaults, preset, file, keys and options in turn."""

from __future__ import annotations

import json
import pathlib
import tomllib
from typing import Any

import click
from pydantic import BaseModel

from mlo.cli.settings import Presets, Setting, SettingOption, default_of, settings_of
from mlo.cli.words import nested_model
from mlo.configuration import NONE, combine, configure
from mlo.errors import ConfigurationError, listed, nearest
from mlo.misfit import shown

Settings = dict[str, Any]
"""Settings by name, nested ones in mappings of their own."""


def configured(
    context: click.Context, model: type[BaseModel], presets: Presets, title: str
) -> BaseModel:
    """Read the settings of a command line: defaults, preset, file, keys and options in turn.

    Args:
        context: of a command with `setting_options`.
        model: the configuration.
        presets: those that may be chosen.
        title: what is configured, for messages.

    Returns:
        The complete configuration.

    Raises:
        ConfigurationError: something cannot be read, or some settings do not fit.
    """
    given = context.params
    chosen = given.get("preset")
    if chosen is not None and chosen not in presets:
        raise ConfigurationError(
            f"--preset: expected one of {listed(presets)}, got '{chosen}'{nearest(chosen, presets)}"
        )
    layers = (
        _nested_defaults(model),
        presets[chosen] if chosen is not None else {},
        read_file(given["config"]) if given["config"] is not None else {},
        _read_keys(given["set"], model),
        _read_options(context),
    )
    return configure(model, combine(*layers), title=title)


def read_file(path: pathlib.Path) -> Settings:
    """Read settings from a TOML file, or from JSON where the name ends so.

    Raises:
        ConfigurationError: the file cannot be read or is not a table.
    """
    parse = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        table = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"--config: cannot read '{path}': {error.strerror}; give the path of a TOML file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--config: '{path}' is damaged: {error}; correct it") from error
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"--config: expected names and values in '{path}', got {type(table).__name__}"
        )
    return table


def _nested_defaults(model: type[BaseModel]) -> Settings:
    """Models that are defaults, as settings: what is given of such a model leaves the rest."""
    fields = {n: f for n, f in model.model_fields.items() if nested_model(f.annotation) is not None}
    defaults = {name: default_of(field) for name, field in fields.items()}
    return {name: d.model_dump() for name, d in defaults.items() if isinstance(d, BaseModel)}


def _read_keys(items: tuple[str, ...], model: type[BaseModel]) -> Settings:
    found: Settings = {}
    known = {setting.path: setting for setting in settings_of(model)}
    for item in items:
        key, equals, text = item.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"--set: expected KEY=VALUE, got '{item}'")
        path = tuple(key.strip().replace("-", "_").split("."))
        value = _value(text, known.get(path), f"--set {key}")
        _assign(found, path, value, f"--set {key}")
    return found


def _read_options(context: click.Context) -> Settings:
    found: Settings = {}
    for option in context.command.params:
        text = context.params.get(option.name or "")
        if isinstance(option, SettingOption) and text is not None:
            setting = option.setting
            value = _value(text, setting, setting.flag)
            _assign(found, setting.path, value, setting.flag)
    return found


def _assign(settings: Settings, path: tuple[str, ...], value: Any, source: str) -> None:
    *parents, last = path
    for part in parents:
        inner = settings.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"{source}: expected '{part}' to hold settings, got {inner!r}; give one of the two"
            )
        settings = inner
    settings[last] = value


def _value(text: str, setting: Setting | None, source: str) -> Any:
    """Read lists, tables and `none`; pydantic reads everything else from the text itself."""
    if text == NONE and setting is not None and setting.optional:
        return None
    plain = setting is not None and setting.field.annotation is str
    if plain or not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{source}: expected a list or table as in JSON, got {shown(text)}: {error}"
        ) from error
