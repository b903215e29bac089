"""The distributions that evaluations left, such as those of learned weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from mlo.recorded import RecordedRun

BANDS = ((5, 95), (25, 75))
"""Percentiles between which a band of a fan lies."""

BINS = 40
"""Bars of a histogram."""

Array = NDArray[numpy.float64]


@dataclasses.dataclass(frozen=True)
class Spread:
    """How the numbers of one metric lay over the ticks of a stage.

    Attributes:
        stage, evaluation, metric: what it is.
        seeds: seed -> ticks made -> its distribution as the record keeps it.
    """

    stage: str
    evaluation: str
    metric: str
    seeds: Mapping[int, Mapping[int, Mapping[str, Any]]]

    def percentiles(self) -> dict[int, Array]:
        """Ticks made -> the 101 percentiles, each the mean over the seeds, where all have some."""
        shared = set.intersection(*(set(ticks) for ticks in self.seeds.values()))
        return {
            tick: numpy.mean([_numbers(of[tick]) for of in self.seeds.values()], axis=0)
            for tick in sorted(shared)
        }

    def final(self) -> list[Mapping[str, Any]]:
        """The last distribution of every seed, without those that hold a NaN or an infinity."""
        last = [ticks[max(ticks)] for ticks in self.seeds.values()]
        return [one for one in last if numpy.isfinite(_numbers(one)).all()]

    @property
    def broken(self) -> int:
        """How many distributions hold a NaN or an infinity."""
        every = [one for ticks in self.seeds.values() for one in ticks.values()]
        return sum(not numpy.isfinite(_numbers(one)).all() for one in every)


def spreads(run: RecordedRun) -> list[Spread]:
    """All metrics of a run that have distributions."""
    found: dict[tuple[str, str, str], dict[int, dict[int, Mapping[str, Any]]]] = {}
    for stage in run.stages:
        for record in stage.evaluations:
            for metric, distribution in record["distributions"].items():
                seeds = found.setdefault((stage.name, record["name"], metric), {})
                seeds.setdefault(stage.seed, {})[record["tick"] + 1] = distribution
    return [Spread(*key, seeds) for key, seeds in found.items()]


def edges(distributions: Sequence[Mapping[str, Any]]) -> Array:
    """Edges of bars that hold all numbers of some finite distributions."""
    ends = [_numbers(one)[[0, -1]] for one in distributions]
    low, high = float(numpy.min(ends)), float(numpy.max(ends))
    if math.isclose(low, high):
        low, high = low - 0.5, high + 0.5
    return numpy.asarray(numpy.linspace(low, high, BINS + 1), float)


def histogram(distributions: Sequence[Mapping[str, Any]], bars: Array) -> Array:
    """The share of the numbers in every bar, all distributions together, each by its count.

    A hundredth of the numbers lies between neighbouring percentiles; it is spread evenly there.

    Args:
        distributions: finite ones, as records keep them.
        bars: edges of the bars, which hold all numbers.

    Returns:
        [len(bars) - 1] shares, which add up to 1.
    """
    total = numpy.zeros(len(bars) - 1)
    for one in distributions:
        below, above = _numbers(one)[:-1], _numbers(one)[1:]
        total += one["count"] * _shares(below, above, bars)
    return numpy.asarray(total / total.sum(), float)


def _shares(below: Array, above: Array, bars: Array) -> Array:
    """Shares of the bars where each interval holds an equal part of all."""
    wide = above > below
    low, high = below[wide, None], above[wide, None]
    overlap = numpy.minimum(high, bars[1:]) - numpy.maximum(low, bars[:-1])
    spread_out: Array = (numpy.maximum(overlap, 0) / (high - low)).sum(axis=0)
    points, _ = numpy.histogram(below[~wide], bars)
    return numpy.asarray((spread_out + points) / len(below), float)


def _numbers(distribution: Mapping[str, Any]) -> Array:
    return numpy.array([float(number) for number in distribution["percentiles"]])
