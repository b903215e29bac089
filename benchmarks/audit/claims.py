"""What a finding is: a claim about a library that the rows of an audit decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from benchmarks.audit.cases import row_id
from benchmarks.audit.problems import problems

SMALL, ROUNDING = 1e-3, 1e-9
"""What is off by more than the first is another algorithm, by less than the second the same."""


UNASKED = ("InstallError", "NoAnswer")
"""Exceptions that are none of the library's: it was not installed, or its process ended."""


class UnmeasuredError(Exception):
    """Why a claim cannot be decided."""


class Rows:
    """The rows of an audit by what they are about."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = {row["id"]: row for row in rows}

    def at(self, library: str, problem: str, method: str, /, **settings: Any) -> dict[str, Any]:
        """One row.

        Raises:
            UnmeasuredError: there is none, or the library could not even be asked.
        """
        name = row_id(library, problem, method, **settings)
        if name not in self._rows:
            raise UnmeasuredError(f"no row {name}")
        row = self._rows[name]
        if row.get("error", {}).get("type") in UNASKED:
            raise UnmeasuredError(row["error"]["message"])
        return row

    def answered(self, *which: str, **settings: Any) -> dict[str, Any]:
        """One row with a number in it.

        Raises:
            UnmeasuredError: an exception is in the place of the number.
        """
        row = self.at(*which, **settings)
        if "error" in row:
            raise UnmeasuredError(f"`{row['error']['type']}`: {row['error']['message']}")
        return row

    def off(self, *which: str, **settings: Any) -> float:
        """The distance from what the algorithm of that name gives."""
        return float(self.answered(*which, **settings)["off_algorithm"])

    def found(self, *which: str, **settings: Any) -> np.ndarray:
        """The hypergradient."""
        return np.array([float(x) for x in self.answered(*which, **settings)["hypergradient"]])


Measured: TypeAlias = tuple[str, bool]
"""What was measured, in words, and whether the claim holds."""

Measure: TypeAlias = Callable[["Rows"], Measured]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that may be wrong (or right) with a library.

    Attributes:
        library: whose.
        claim: what was looked for.
        measure: rows -> what was measured, and whether the claim holds.
        good: the claim is that something is right.
    """

    library: str
    claim: str
    measure: Measure
    good: bool = False

    def verdict(self, rows: Rows) -> tuple[str, str]:
        """What was measured, and what that says about the claim."""
        try:
            words, holds = self.measure(rows)
        except UnmeasuredError as reason:
            return str(reason), "not measured"
        if self.good:
            return words, "right" if holds else "WRONG"
        return words, "reproduced" if holds else "not reproduced"


def raises(kind: str, *which: str, **settings: Any) -> Measure:
    """A measure of whether that row is an exception of this kind."""

    def measure(rows: Rows) -> Measured:
        error = rows.at(*which, **settings).get("error")
        if error is None:
            return "no error", False
        return f"`{error['type']}`: {error['message']}", error["type"] == kind

    return measure


def stale_but_first(offs: list[float]) -> bool:
    """Right after one iteration, and wrong after all others."""
    return offs[0] < ROUNDING and min(offs[1:]) > SMALL


def listed(what: str, numbers: list[float]) -> str:
    """What they are, and the numbers."""
    return f"{what}: {', '.join(short(number) for number in numbers)}"


def short(number: float) -> str:
    """Two digits, or one and the power of ten."""
    return f"{number:.2g}" if SMALL < number < 1e4 else f"{number:.0e}"


def word(found: np.ndarray) -> str:
    """The numbers, unless all are NaN."""
    return "all NaN" if np.isnan(found).all() else str(found.round(4).tolist())


def with_old_residual(iterations: int) -> np.ndarray:
    """The quadratic's hypergradient by the recurrence of conjugate gradients with one mistake.

    The next direction is made of the residual before the update instead of that after it.
    """
    data = problems()["quadratic"]
    A, B = np.array(data["A"]), np.array(data["B"])
    rest = np.array(data["w"]) - np.array(data["t"])
    u, direction = np.zeros_like(rest), rest
    for _ in range(iterations):
        product = A @ direction
        step = rest @ rest / (direction @ product)
        u, new = u + step * direction, rest - step * product
        direction = rest + (new @ new) / (rest @ rest) * direction
        rest = new
    return B.T @ u
