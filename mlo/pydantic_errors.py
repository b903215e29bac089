"""The errors of pydantic by the keys that the user wrote: one misfit for one wrong setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from mlo.misfit import Misfit, Path, either
from mlo.setting_types import alternatives, inner, keys, model_of, words
from mlo.setting_unions import by_member, of_one_member, tag_words

Errors = Sequence[tuple[Path, ErrorDetails]]
"""Errors of pydantic, each with what is left of its path."""


def find_misfits(
    annotation: Any, errors: Errors, path: Path = (), beside: Iterable[str] = ()
) -> list[Misfit]:
    """Translate the errors of one value.

    Args:
        annotation: type of the value.
        errors: what pydantic says of it, with paths from here on. They hold labels of the
            members of unions; the paths of misfits hold keys and positions only.
        path: where the value is.
        beside: the keys of the model that it is in.

    Returns:
        The misfits in the order of the errors.
    """
    found: list[Misfit] = []
    deeper: dict[int | str, list[tuple[Path, ErrorDetails]]] = {}
    for rest, error in errors:
        if rest in ((), ("[key]",)):
            found += _misfits(annotation, error, path, (*beside,), of_key=bool(rest))
        else:
            deeper.setdefault(rest[0], []).append((rest[1:], error))
    members = alternatives(annotation)
    if len(members) > 1:
        if deeper:
            pairs = by_member(members, deeper)
            found += of_one_member([find_misfits(m, e, path) for m, e in pairs], path)
        return found
    model = model_of(members[0])
    for part, inside in deeper.items():
        here = keys(model) if model else ()
        found += find_misfits(inner(members[0], part), inside, (*path, part), here)
    return found


def _misfits(
    annotation: Any, error: ErrorDetails, path: Path, beside: tuple[str, ...], *, of_key: bool
) -> list[Misfit]:
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return [Misfit(path, "unknown", value, known=beside)]
    if kind == "missing":
        return [Misfit(path, "missing")]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(annotation, error, path)
    reason = _expected(error)
    if reason is None:
        # Pydantic puts the first of these before the sentences that validators raise.
        sentence = re.sub(r"^(Value error|Assertion failed), ", "", error["msg"])
        return [Misfit(path, "refused", value, (sentence,))]
    if of_key:
        return [Misfit(path, "unfit", value, (f"a key that is {reason}",))]
    return [Misfit(path, "unfit", value, (reason,), words(annotation))]


def _expected(error: ErrorDetails) -> str | None:
    """What pydantic expected, or None where a validator says it in a sentence of its own."""
    message = error["msg"]
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a table of names and values"
    value = r"(?:Decimal i|I)nput should be (.+?)(, unable to .*|, got a .*)?$"
    if found := re.match(value, message, re.DOTALL):
        return found[1]
    if found := re.match(r"(\w+) should (have|match) (.+?)( after validation, .*)?$", message):
        verb = "with" if found[2] == "have" else "that matches"
        return f"a {found[1].lower()} {verb} {found[3]}"
    return None


def _wrong_tag(annotation: Any, error: ErrorDetails, path: Path) -> list[Misfit]:
    """The misfits of a table that does not say which of several models it is."""
    value = error["input"]
    named = re.findall(r"'([^']*)'", error["ctx"]["discriminator"])
    if not (named and isinstance(value, Mapping)):  # a function of the recipe finds the word
        return [Misfit(path, "refused", value, (error["msg"],))]
    name = next((name for name in named if name in value), named[0])
    members = alternatives(annotation)
    tags = tag_words(members, name)
    reasons = (either(f"'{tag}'" for tag in tags),)
    if name in value:
        wrong = Misfit((*path, name), "unfit", value[name], reasons, tags)
    else:
        wrong = Misfit((*path, name), "missing", None, reasons, tags)
    # Which model is meant is not known, but what none of them has is wrong in any case.
    models = [model for member in members if (model := model_of(member)) is not None]
    known = tuple(dict.fromkeys(key for model in models for key in keys(model)))
    unknown = [key for key in value if key not in known]
    return [wrong, *(Misfit((*path, key), "unknown", value[key], known=known) for key in unknown)]
