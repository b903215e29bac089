"""Numbers over the ticks of a run: collected from its records, and few enough to be drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mlo.recorded import RecordedRun, RecordedStage

Key = tuple[str, ...]
"""What was measured; begins with the stage."""

Entries = Callable[[RecordedStage], Iterable[tuple[Key, int, float]]]
"""Reads (what within the stage, ticks made before it, value) from the records of a stage."""

POINTS = 400
"""The most points that a curve is drawn with."""

BUDGET = 6000
"""The most points that a chart with many curves is drawn with, if that leaves each 100."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values over ticks, in the order of their records.

    Attributes:
        ticks: how many ticks had been made; several values at one tick are possible.
        values: the values; NaN and infinities among them.
    """

    ticks: list[int] = dataclasses.field(default_factory=list)
    values: list[float] = dataclasses.field(default_factory=list)

    def add(self, tick: int, value: float) -> None:
        """Add a value."""
        self.ticks.append(tick)
        self.values.append(value)

    def binned(self, width: int) -> dict[int, tuple[float, float]]:
        """Bin -> (mean tick, mean value); a bin takes `width` ticks, beginning with tick 0.

        The mean of a bin with a NaN or an infinity in it is NaN, so that it stays visible.
        """
        groups: dict[int, list[tuple[int, float]]] = {}
        for tick, value in zip(self.ticks, self.values, strict=True):
            groups.setdefault(tick // width, []).append((tick, value))
        return {place: _mean(group) for place, group in sorted(groups.items())}

    @property
    def broken(self) -> int:
        """How many values are NaN or infinite."""
        return sum(not math.isfinite(value) for value in self.values)


Seeds = dict[int, Curve]
"""Seed -> curve."""


def bin_width(curves: Sequence[Curve]) -> int:
    """Ticks a bin has to take so that all curves together stay drawable.

    Args:
        curves: all curves of a chart.
    """
    points = min(POINTS, max(100, BUDGET // max(1, len(curves))))
    if all(len(set(curve.ticks)) <= points for curve in curves):
        return 1
    return math.ceil((1 + max(max(curve.ticks, default=0) for curve in curves)) / points)


def mean_curve(binned: Sequence[dict[int, tuple[float, float]]]) -> dict[int, tuple[float, float]]:
    """The mean over several binned curves, where all of them have a value."""
    shared = set.intersection(*(set(curve) for curve in binned)) if binned else set()
    count = len(binned)
    return {
        place: (
            sum(curve[place][0] for curve in binned) / count,
            sum(curve[place][1] for curve in binned) / count,
        )
        for place in sorted(shared)
    }


def gather(run: RecordedRun, entries: Entries) -> dict[Key, Seeds]:
    """Collect curves from all stages of a run: (stage, what) -> seed -> curve."""
    found: dict[Key, Seeds] = {}
    for stage in run.stages:
        for key, tick, value in entries(stage):
            seeds = found.setdefault((stage.name, *key), {})
            seeds.setdefault(stage.seed, Curve()).add(tick, float(value))
    return found


def evaluations(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The evaluations: key (evaluation, metric)."""
    for record in stage.evaluations:
        for name, value in record["metrics"].items():
            yield (record["name"], name), record["tick"] + 1, value


def losses(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The losses before every move: key (problem,)."""
    for tick, move in _moves(stage):
        yield (move["problem"],), tick, move["loss"]


def gradient_norms(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The norms of the total gradients: key (problem,)."""
    for tick, move in _moves(stage):
        yield (move["problem"],), tick, move["gradient_norm"]


def returned(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The numbers that losses returned beside their value: key (problem, metric)."""
    for tick, move in _moves(stage):
        for name, value in move["metrics"].items():
            if not isinstance(value, list):  # a vector has no place among lines
                yield (move["problem"], name), tick, value


def residuals(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The relative residuals of linear solves: key (problem, through)."""
    for tick, move in _moves(stage):
        for response in move["responses"]:
            if response["residual"] is not None:
                yield (move["problem"], response["problem"]), tick, response["residual"]


def products(stage: RecordedStage) -> Iterator[tuple[Key, int, float]]:
    """The products that responses took: key (problem, through)."""
    for tick, move in _moves(stage):
        for response in move["responses"]:
            yield (move["problem"], response["problem"]), tick, response["products"]


def problems(run: RecordedRun) -> dict[str, dict[str, int]]:
    """Stage -> problem -> level, from the lowest, for the stages that have begun."""
    found: dict[str, dict[str, int]] = {}
    for stage in run.stages:
        if stage.start is not None:
            drawn = stage.start["drawing"]["problems"]
            found.setdefault(stage.name, {p["name"]: p["level"] for p in drawn})
    return found


def answering(run: RecordedRun) -> set[tuple[str, str]]:
    """(Stage, problem) of those whose gradient went through responses."""
    return {
        (stage.name, move["problem"])
        for stage in run.stages
        for _, move in _moves(stage)
        if move["responses"]
    }


def _moves(stage: RecordedStage) -> Iterator[tuple[int, Any]]:
    for record in stage.ticks:
        for move in record["moves"]:
            yield record["tick"], move


def _mean(group: list[tuple[int, float]]) -> tuple[float, float]:
    tick = sum(tick for tick, _ in group) / len(group)
    values = [value for _, value in group]
    whole = all(map(math.isfinite, values))
    return tick, math.fsum(values) / len(values) if whole else math.nan
