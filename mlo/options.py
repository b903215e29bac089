"""Settings on the command line: one option for every field of a recipe's configuration."""

from __future__ import annotations

import argparse
import json
import pathlib
import tomllib
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlo.configuration import NONE
from mlo.errors import ConfigurationError, nearest

_PREFIX = "setting:"


def add_settings(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Add one option for each field of a model, and those that set any key.

    Raises:
        ConfigurationError: a field has the name of an option that the parser has already.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=pathlib.Path,
        help="read settings from a TOML or JSON file; the options below go before it",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting by its key, with dots into nested ones; may be given several times",
    )
    group = parser.add_argument_group("settings of the recipe")
    for name, field in model.model_fields.items():
        flag = _flag(name)
        if flag in parser._option_string_actions:
            raise ConfigurationError(
                f"{model.__name__}.{name}: expected a name that the command line has not taken, "
                f"got '{name}', which would be its option {flag}; rename the field"
            )
        kind = _metavar(field.annotation)
        group.add_argument(flag, dest=_PREFIX + name, metavar=kind, help=_help(field))


def parse_settings(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Parse a command line into the parser's own options and the settings.

    Args:
        parser: a parser with `add_settings`.
        arguments: the command line.

    Returns:
        The options, and the settings that were given in a file, by key or by option.

    Raises:
        ConfigurationError: an option is unknown, or a file or key cannot be read.
    """
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
        hint = nearest(name, known) if name.startswith("-") else "; options begin with --"
        raise ConfigurationError(
            f"{parser.prog}: there is no option '{unknown[0]}'{hint}; --help lists all"
        )
    settings = {} if options.config is None else read_file(options.config)
    for item in options.set:
        key, equals, text = item.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"--set: expected KEY=VALUE, got '{item}'")
        _assign(settings, key.strip().replace("-", "_").split("."), _value(text, f"--set {key}"))
    for dest, text in vars(options).items():
        if dest.startswith(_PREFIX) and text is not None:
            name = dest.removeprefix(_PREFIX)
            settings[name] = _value(text, _flag(name))
    return options, settings


def read_file(path: pathlib.Path) -> dict[str, Any]:
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
    except ValueError as error:
        raise ConfigurationError(f"--config: '{path}' is damaged: {error}; correct it") from error
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"--config: expected names and values in '{path}', got {type(table).__name__}"
        )
    return table


def _assign(settings: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for part in parents:
        inner = settings.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"--set {'.'.join(path)}: expected '{part}' to hold settings, got {inner!r}"
            )
        settings = inner
    settings[last] = value


def _value(text: str, source: str) -> Any:
    """Read lists and tables; pydantic reads everything else from the text itself."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{source}: expected a list or table as in JSON, got '{text}': {error}"
        ) from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(field: FieldInfo) -> str:
    # Argparse formats help texts, so a percent sign is written twice.
    text = (field.description or "").replace("%", "%%")
    if field.is_required():
        return f"{text} (required)"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None:
        shown = NONE
    elif isinstance(default, bool):
        shown = "yes" if default else "no"
    else:
        shown = str(default).replace("%", "%%")
    return f"{text} (default: {shown})"


def _metavar(annotation: Any) -> str:
    """Write a type for the help: the words to choose from, or what kind of value it is."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(word) for word in arguments)
    if origin in (typing.Union, types.UnionType):
        return "|".join(_metavar(member) for member in arguments)
    kinds = {types.NoneType: NONE, bool: "yes|no", int: "N", float: "X", str: "NAME"}
    return kinds.get(annotation, "VALUE")
