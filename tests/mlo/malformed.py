"""Malformed configurations, made by rule from a model and settings of it that fit.

What must be said of each mistake is derived from the model alone, not from the code under test.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
import random
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import BaseModel

Path = tuple[Any, ...]

# One value of every kind that a file can hold, tables and lists aside.
POOL = ("two words", 1.5, 3, True, None, math.nan)
ACCEPTED = {int: (3,), float: (1.5, 3), bool: (True,), str: ("two words",)}


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        rule: how it was made.
        path: where it is.
        region: what no other mistake may touch, or this one could not be seen.
        said: for every line that must be there, its path and what it must contain.
        key: a new name for the key at `path`, or None where its value is replaced.
        value: the new value.
    """

    rule: str
    path: Path
    region: Path
    said: dict[str, str]
    key: str | None = None
    value: Any = None

    def put_into(self, settings: dict[str, Any]) -> None:
        *parents, last = self.path
        table: Any = settings
        for part in parents:
            table = table[part]
        if self.rule == "stray":
            table[last] = self.value
        elif self.key is None:
            table[int(last) if isinstance(table, list) else last] = self.value
        else:
            table[self.key] = table.pop(last)


def malformed(settings: dict[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    wrong = copy.deepcopy(settings)
    for mistake in mistakes:
        mistake.put_into(wrong)
    return wrong


def several(mistakes: list[Mistake], count: int, draw: random.Random) -> list[Mistake]:
    """Draw mistakes that do not hide one another."""
    chosen: list[Mistake] = []
    for mistake in draw.sample(mistakes, len(mistakes)):
        apart = (_apart(mistake.region, other.region) for other in chosen)
        if len(chosen) < count and all(apart):
            chosen.append(mistake)
    return chosen


def mistakes_of(model: type[BaseModel], settings: dict[str, Any], seed: int = 0) -> list[Mistake]:
    """Make every mistake that the rules know."""
    return list(_in_model(model, settings, (), (), random.Random(seed)))


def _apart(one: Path, other: Path) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] != other[:shared]


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _keys(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _in_model(
    model: type[BaseModel], table: dict[str, Any], path: Path, region: Path, draw: random.Random
) -> Iterator[Mistake]:
    fields = _keys(model)
    yield Mistake(
        "stray",
        (*path, "qqqq"),
        region or (*path, "qqqq"),
        {_dotted((*path, "qqqq")): "there is no such setting; known: "},
        value=1,
    )
    for key, value in table.items():
        here = (*path, key)
        field = fields[key]
        for wrong in misspelt(key, draw):
            if nearest_by_edits(wrong, fields) == [key]:
                said = {_dotted((*path, wrong)): f"no such setting; did you mean '{key}'?"}
                if field.is_required():
                    said[_dotted(here)] = "got none"
                yield Mistake("key", here, region or here, said, key=wrong)
        inner = region if key != "kind" else path
        kind = Annotated[field.annotation, *field.metadata, None]  # None: one at least
        yield from _in_value(kind, value, here, inner, draw)


def _in_value(
    annotation: Any, value: Any, path: Path, region: Path, draw: random.Random
) -> Iterator[Mistake]:
    members, metadata = _members(annotation, [])
    unlimited = any(
        getattr(limit, "allow_inf_nan", False) for limits in metadata for limit in limits
    )
    allowed = [None] * _optional(annotation) + [math.nan] * unlimited
    for wrong in POOL:
        if not (_accepts(members, wrong) or any(wrong is value for value in allowed)):
            yield _unfit("type", path, region, wrong)
    for member, limits in zip(members, metadata, strict=True):
        for wrong in _out_of_range(member, limits):
            yield _unfit("range", path, region, wrong)
    choices = [word for member in members for word in _words(member)]
    for word in choices:
        for wrong in misspelt(word, draw):
            if nearest_by_edits(wrong, choices) == [word]:
                yield _unfit("word", path, region, wrong, f"; did you mean '{word}'?")
    yield from _inside(members, value, path, region, draw)


def _inside(
    members: list[Any], value: Any, path: Path, region: Path, draw: random.Random
) -> Iterator[Mistake]:
    models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
    if models and isinstance(value, dict):
        (model,) = [m for m in models if _keys(m).keys() >= value.keys() and _says(m, value)]
        # Two mistakes could make the value look like another member of the union.
        region = path if len(models) > 1 and "kind" not in value else region
        yield from _in_model(model, value, path, region, draw)
        return
    (member,) = members if len(members) == 1 else (None,)
    items = typing.get_args(member)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _in_value(items[1], item, (*path, key), region, draw)
    elif isinstance(value, list | tuple) and items:
        for index, item in enumerate(value):
            kind = items[index] if len(items) > index and items[index] is not ... else items[0]
            yield from _in_value(kind, item, (*path, index), region, draw)


def _unfit(rule: str, path: Path, region: Path, value: Any, hint: str = "") -> Mistake:
    said = {_dotted(path): f"got {value!r}{hint}"}
    return Mistake(rule, path, region or path, said, value=value)


def _says(model: type[BaseModel], table: dict[str, Any]) -> bool:
    return "kind" not in table or table["kind"] in _words(model.model_fields["kind"].annotation)


def _members(annotation: Any, metadata: list[Any]) -> tuple[list[Any], list[list[Any]]]:
    """The alternatives of a type, and the constraints of each."""
    if typing.get_origin(annotation) is Annotated:
        inner, *extra = typing.get_args(annotation)
        found = [m for e in extra for m in getattr(e, "metadata", [e])]
        return _members(inner, [*metadata, *found])
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation], [metadata]
    members, limits = [], []
    for member in typing.get_args(annotation):
        if member is not types.NoneType:
            inner_members, inner_limits = _members(member, metadata)
            members += inner_members
            limits += inner_limits
    return members, limits


def _optional(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return _optional(typing.get_args(annotation)[0])
    return types.NoneType in typing.get_args(annotation)


def _accepts(kinds: list[Any], value: Any) -> bool:
    # A value of the pool is no list, no table and none of the words.
    return any(value is accepted for kind in kinds for accepted in ACCEPTED.get(kind, ()))


def _words(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
    return [member.value for member in kind] if is_enum else []


def _out_of_range(kind: Any, limits: list[Any]) -> Iterator[Any]:
    if kind not in (int, float):
        return
    for limit in limits:
        match limit:
            case annotated_types.Ge(ge=bound):
                yield kind(bound - 1)
            case annotated_types.Gt(gt=bound):
                yield from (kind(bound), kind(bound - 1))
            case annotated_types.Le(le=bound):
                yield kind(bound + 1)
            case annotated_types.Lt(lt=bound):
                yield from (kind(bound), kind(bound + 1))


def misspelt(name: str, draw: random.Random) -> list[str]:
    """Drop, double, transpose and replace one letter, each at a random place."""
    i, j = draw.randrange(len(name)), draw.randrange(len(name) - 1)
    found = [
        name[:i] + name[i + 1 :],
        name[:i] + name[i] + name[i:],
        name[:j] + name[j + 1] + name[j] + name[j + 2 :],
        name[:i] + draw.choice("jqxz") + name[i + 1 :],
    ]
    return [wrong for wrong in dict.fromkeys(found) if wrong != name]


def nearest_by_edits(name: str, known: typing.Iterable[str]) -> list[str]:
    """The names that need the fewest edits; none where `name` itself is known."""
    distances = {word: edits(name, word) for word in known}
    least = min(distances.values())
    return [word for word, distance in distances.items() if 0 < distance == least]


def edits(one: str, other: str) -> int:
    """Letters to insert, drop, replace or exchange with their neighbour."""
    table = {(i, -1): i + 1 for i in range(-1, len(one))}
    table |= {(-1, j): j + 1 for j in range(-1, len(other))}
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)
            )
            if i and j and a == other[j - 1] and b == one[i - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(one) - 1, len(other) - 1]
