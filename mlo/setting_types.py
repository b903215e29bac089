"""What the annotations of settings say: their alternatives, words, keys and nested models."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo


def plain(annotation: Any) -> Any:
    """Return an annotation without the metadata and the alias around it."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):  # a type alias that has a name
            annotation = annotation.__value__
        else:
            return annotation


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union without `None`, or the annotation alone."""
    annotation = plain(annotation)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return (annotation,)
    members = [m for m in typing.get_args(annotation) if plain(m) is not types.NoneType]
    return alternatives(members[0]) if len(members) == 1 else tuple(members)


def words(annotation: Any) -> tuple[str, ...]:
    """Return the words to choose from: those of a `Literal`, of an `Enum` or of a union of them."""
    members = alternatives(annotation)
    if len(members) > 1:
        return tuple(word for member in members for word in words(member))
    (kind,) = members
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        choices = tuple(kind)
    else:
        return ()
    return tuple(str(c.value if isinstance(c, enum.Enum) else c) for c in choices)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or None where it is something else."""
    kind = plain(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def keys(model: type[BaseModel]) -> dict[str, Any]:
    """Return the annotations of a model by the keys that its settings have, aliases included."""
    by_name = any(model.model_config.get(k) for k in ("validate_by_name", "populate_by_name"))
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        aliases = _aliases(field)
        found |= dict.fromkeys(aliases, field.annotation)
        if by_name or not aliases:
            found[name] = field.annotation
    return found


def inner(annotation: Any, part: int | str) -> Any:
    """Return the annotation of what is called `part` in a value; `Any` where nothing is known."""
    annotation = plain(annotation)
    model = model_of(annotation)
    if model is not None:
        return keys(model).get(str(part), Any)
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    if typing.get_origin(annotation) is tuple and isinstance(part, int):
        return arguments[part] if part < len(arguments) else (arguments or [Any])[-1]
    # What lists and sets hold, and the values of mappings, is named last.
    return arguments[-1] if arguments else Any


def places(
    annotation: Any, path: tuple[str, ...] = (), above: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Go through the paths of all keys; an item of a list or mapping is called ``*``."""
    members = alternatives(annotation)
    if len(members) > 1:
        for member in members:
            yield from places(member, path, above)
        return
    model = model_of(members[0])
    if model is None:
        for item in typing.get_args(members[0]):
            yield from places(item, (*path, "*"), above)
    elif model not in above:  # a model may hold others of its kind
        for key, kind in keys(model).items():
            yield (*path, key)
            yield from places(kind, (*path, key), (*above, model))


def _aliases(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [str(c if isinstance(c, str) else c.path[0]) for c in choices if c is not None]
