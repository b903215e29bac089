"""Unions of settings: which member a value was meant for, and what is said where it fits none.

Pydantic tells every member of a union why it refuses. A user has written one value, and wants to
read about that one.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlo.misfit import Misfit, Path
from mlo.setting_types import keys, model_of, words

Found = TypeVar("Found")


def by_member(members: Sequence[Any], found: Mapping[int | str, Found]) -> list[tuple[Any, Found]]:
    """Find the members that pydantic's labels stand for; `Any` where that cannot be told.

    Args:
        members: the annotations.
        found: what was found by label. Of a tagged union, that is the tag of one member; of
            others, a label of every member, in their order.
    """
    if len(found) == len(members):
        return list(zip(members, found.values(), strict=True))
    return [(_tagged(members, str(label)), errors) for label, errors in found.items()]


def tag_words(members: Sequence[Any], key: str) -> tuple[str, ...]:
    """Return the words that a key may have in all the models of a union together."""
    models = [model for member in members if (model := model_of(member)) is not None]
    return tuple(word for model in models for word in words(keys(model).get(key, Any)))


def of_one_member(found: Sequence[list[Misfit]], path: Path) -> list[Misfit]:
    """Choose among the misfits of all members those of the members that need the fewest changes.

    Args:
        found: the misfits of every member.
        path: where the union is.
    """
    meant = [misfits for misfits in found if not _of_another_kind(misfits, path)]
    if not meant:
        return _joined(found)
    least = min(_changes(misfits) for misfits in meant)
    first, *others = [misfits for misfits in meant if _changes(misfits) == least]
    return _joined([first, *(o for o in others if _places(o) == _places(first))])


def _tagged(members: Sequence[Any], tag: str) -> Any:
    models = [model for member in members if (model := model_of(member)) is not None]
    for key in keys(models[0]) if models else ():
        fitting = [model for model in models if tag in words(keys(model).get(key, Any))]
        if len(fitting) == 1:
            return fitting[0]
    return Any


def _of_another_kind(misfits: Sequence[Misfit], path: Path) -> bool:
    """Tell whether the value as a whole is not what the member is."""
    return any(misfit.path == path and misfit.kind == "unfit" for misfit in misfits)


def _changes(misfits: Sequence[Misfit]) -> int:
    """Count the changes that would make it fit; a key that is near to none counts twice."""
    renamed = {(*m.path[:-1], near) for m in misfits if m.kind == "unknown" for near in _near(m)}
    changes = 0
    for misfit in misfits:
        if misfit.kind == "unknown":
            changes += 1 if _near(misfit) else 2
        elif misfit.path not in renamed:  # else the key is there, misspelt
            changes += 1
    return changes


def _near(misfit: Misfit) -> list[str]:
    return difflib.get_close_matches(str(misfit.path[-1]), misfit.known, n=1)


def _places(misfits: Sequence[Misfit]) -> list[tuple[Path, str]]:
    return [(misfit.path, misfit.kind) for misfit in misfits]


def _joined(found: Sequence[list[Misfit]]) -> list[Misfit]:
    """Make one misfit of those that are at the same place, with the reasons of all of them."""
    joined: dict[tuple[Path, str], Misfit] = {}
    for misfit in itertools.chain.from_iterable(found):
        place = (misfit.path, misfit.kind)
        first = joined.get(place, Misfit(*place))
        joined[place] = dataclasses.replace(
            misfit,
            reasons=tuple(dict.fromkeys(first.reasons + misfit.reasons)),
            known=tuple(dict.fromkeys(first.known + misfit.known)),
        )
    return list(joined.values())
