"""The methods that are measured: to add one is a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mlo

ROUNDING = 1e-14
"""Tolerance of solvers that are stopped by their number of iterations."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A method, and the knob that buys accuracy with work.

    Attributes:
        label: its name in tables and pictures.
        make: from a value of the knob to the method.
        knob: the argument that is turned; `None` where there is nothing to turn.
        values: what it is turned to.
        running: its value in the runs.
        moves: updates that the inner problem makes before the hypergradient is asked for, of a
            value of the knob. They count as work.
    """

    label: str
    make: Callable[[int], mlo.Hypergradient]
    knob: str | None = None
    values: tuple[int, ...] = (0,)
    running: int = 0
    moves: Callable[[int], int] = lambda value: 0

    def within(self, largest: int) -> tuple[int, ...]:
        """The values of the knob up to a bound."""
        return tuple(value for value in self.values if value <= largest)


def up_to(largest: int, per_octave: int) -> tuple[int, ...]:
    """Whole numbers from 1 on, in about equal ratios."""
    count = (largest.bit_length() - 1) * per_octave
    return tuple(sorted({round(2 ** (k / per_octave)) for k in range(count + 1)}))


FAMILIES = (
    Family("Direct", lambda _: mlo.Direct()),
    Family("OneStep", lambda _: mlo.OneStep()),
    Family("FiniteDifference", lambda _: mlo.FiniteDifference()),
    Family("Sama", lambda _: mlo.Sama()),
    Family(
        "Neumann",
        lambda k: mlo.Neumann(terms=k, tolerance=ROUNDING),
        "terms",
        up_to(2048, 2),
        running=10,
    ),
    Family(
        "ConjugateGradient",
        lambda k: mlo.ConjugateGradient(iterations=k, tolerance=ROUNDING),
        "iterations",
        up_to(256, 4),
        running=10,
    ),
    Family(
        "Minres",
        lambda k: mlo.Minres(iterations=k, tolerance=ROUNDING),
        "iterations",
        up_to(256, 4),
        running=10,
    ),
    Family(
        "Nystrom",
        lambda k: mlo.Nystrom(rank=k, damping=0.01),
        "rank",
        (*up_to(64, 2), 100),
        running=20,
    ),
    Family("Dense", lambda _: mlo.Dense()),
    Family(
        "Unrolled",
        lambda k: mlo.Unrolled(steps=k),
        "steps",
        up_to(512, 1),
        running=10,
        moves=lambda k: k,
    ),
    # It differentiates all updates there were, so the knob is their number.
    Family("ForwardMode", lambda _: mlo.ForwardMode(), "updates", up_to(8, 1), moves=lambda k: k),
)
