"""One setting that does not fit, and the sentence that says so."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from mlo.errors import listed, nearest

Path = tuple[int | str, ...]

_LONGEST = 60


@dataclasses.dataclass(frozen=True)
class Misfit:
    """A setting that does not fit.

    Attributes:
        path: the keys and positions that lead to it.
        kind: ``unknown`` is a key that does not exist, ``missing`` one without a value,
            ``refused`` a value that a validator refuses with the sentence in `reasons`, and
            ``unfit`` one that is none of what `reasons` list.
        value: what was given.
        reasons: what was expected; several are alternatives.
        known: the keys or words to choose from.
    """

    path: Path
    kind: Literal["unknown", "missing", "refused", "unfit"]
    value: Any = None
    reasons: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def sentence(self, places: Iterable[tuple[str, ...]]) -> str:
        """Say in one line where it is, what was expected and what was found.

        Args:
            places: the paths of all keys there are, for a key that stands in the wrong place.
        """
        reason = re.sub(r"\s*\n\s*", " ", self._reason(places))
        return f"{written(self.path)}: {reason}" if self.path else reason

    def _reason(self, places: Iterable[tuple[str, ...]]) -> str:
        expected = either(self.reasons)
        if self.kind == "unknown":
            return f"there is no such setting{self._nearest_key(places)}"
        if self.kind == "missing":
            return f"expected {expected or 'a value'}, got none; it has no default"
        if self.kind == "refused":
            return expected
        hint = nearest(self.value, self.known) if isinstance(self.value, str) else ""
        return f"expected {expected}, got {shown(self.value)}{hint}"

    def _nearest_key(self, places: Iterable[tuple[str, ...]]) -> str:
        """Name the nearest key beside it, else the nearest of all, else those beside it."""
        key = str(self.path[-1])
        if hint := nearest(key, self.known):
            return hint
        own = tuple("*" if isinstance(part, int) else part for part in self.path)
        everywhere = list(places)
        elsewhere = {place[-1]: place for place in reversed(everywhere)}
        found = difflib.get_close_matches(key, elsewhere, n=1)
        if found and own not in everywhere:  # else another member of the union has it
            return f"; did you mean '{written(elsewhere[found[0]])}'?"
        return f"; known: {listed(self.known)}"


def either(alternatives: Iterable[str]) -> str:
    """Join alternatives by commas and a last *or*."""
    *others, last = list(alternatives) or [""]
    return f"{', '.join(others)} or {last}" if others else last


def shown(value: Any) -> str:
    """Write a value as Python does, without its middle where it is long."""
    text = repr(value)
    half = (_LONGEST - 5) // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def written(path: Path) -> str:
    """Write a path as TOML does: with dots, and in quotes what is more than a word."""
    parts = (str(part) for part in path)
    return ".".join(p if re.fullmatch(r"[\w*-]+", p) else json.dumps(p) for p in parts)
