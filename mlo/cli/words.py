"""The type and the default of a setting in words, for the help and for completion."""

from __future__ import annotations

import enum
import json
import pathlib
import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlo import setting_types
from mlo.section import NONE
from mlo.setting_types import alternatives, model_of, plain

_LONGEST = 36
"""Characters of alternatives that are shown beside an option; more are told in its help."""

_KINDS: dict[Any, str] = {
    bool: "yes|no",
    int: "N",
    float: "X",
    str: "NAME",
    pathlib.Path: "PATH",
    types.NoneType: NONE,
}


def members(annotation: Any) -> tuple[Any, ...]:
    """The types that a union is made of; the type itself where it is none."""
    annotation = plain(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for arm in typing.get_args(annotation) for part in members(arm))
    return (annotation,)


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The one model that a value of this type holds, whether or not it may be `None`."""
    kinds = alternatives(annotation)
    return model_of(kinds[0]) if len(kinds) == 1 else None


def words(annotation: Any) -> list[str]:
    """The words that a value may be written as, where these can be listed."""
    return [word for kind in members(annotation) for word in _words(kind)]


def metavar(annotation: Any) -> str:
    """A type in a word: what to choose from, or what kind of value it is."""
    found = "|".join(_kind(kind) for kind in members(annotation))
    if len(found) <= _LONGEST:
        return found
    return "WORD" if words(annotation) else "VALUE"


def help_text(field: FieldInfo, default: Any) -> str:
    """What a setting means, and its default."""
    parts = [field.description] if field.description else []
    if metavar(field.annotation) == "WORD":
        parts.append(f"one of {', '.join(words(field.annotation))}")
    end = "(required)" if field.is_required() else f"(default: {_written(default)})"
    return " ".join(["; ".join(parts), end]).strip()


def _words(kind: Any) -> list[str]:
    return [*setting_types.words(kind)] or {bool: ["yes", "no"], types.NoneType: [NONE]}.get(
        kind, []
    )


def _kind(kind: Any) -> str:
    return "|".join(_words(kind)) or _KINDS.get(kind, "VALUE")


def _written(value: Any) -> str:
    """A default as it is written on the command line."""
    value = value.value if isinstance(value, enum.Enum) else value
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else str(value)
