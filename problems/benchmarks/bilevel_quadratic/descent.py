"""The optimization itself: the metrics against gradient evaluations, for every method."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import mlo
from problems.benchmarks.bilevel_quadratic.methods import Family
from problems.benchmarks.bilevel_quadratic.problem import Quadratic, Spectra, draw
from problems.benchmarks.bilevel_quadratic.program import build, present
from problems.benchmarks.bilevel_quadratic.spread import rounded, spread
from problems.benchmarks.bilevel_quadratic.work import Work

METRICS = ("value", "gap", "inner_distance")
"""Those of the problem, with h(x) less its lowest value in the place of `value_func`."""

RATES = (0.03, 0.1, 0.3, 1.0)
"""Learning rates of the outer problem that every method is tried with."""

TUNING = 1000
"""Seed of the problem on which the rate is chosen; it is none of those that are reported."""

REPEAT = 10
"""Updates of the inner problem for one of the outer problem."""

POINTS = 20
"""How many times the metrics are looked at, besides the start."""

HOPELESS = 1e12
"""A run whose `value` has grown by this factor is ended."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is optimized, and how long.

    Attributes:
        spectra: of the problems.
        inner_rate: learning rate of the inner problem.
        batch: samples a batch; `None` for all.
        budget: gradient evaluations of a run.
    """

    spectra: Spectra
    inner_rate: float
    batch: int | None
    budget: int

    def limits(self) -> list[int]:
        """The numbers of evaluations at which the metrics are looked at."""
        return [self.budget * k // POINTS for k in range(POINTS + 1)]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        trace: gradient evaluations, and the metrics that they led to; one more a tick.
        failed: solves that failed.
    """

    trace: list[tuple[int, dict[str, float]]]
    failed: int

    def seen(self, name: str, limits: Sequence[int]) -> list[float]:
        """A metric where so many evaluations had been made, or were about to be exceeded."""
        return [
            next(metrics[name] for made, metrics in reversed(self.trace) if made <= limit)
            for limit in limits
        ]


def tuned(setup: Setup, family: Family, seeds: Sequence[int], done: Callable[[], None]) -> dict:
    """Choose a rate by one problem, run on others.

    Args:
        setup: what is optimized.
        family: by which method.
        seeds: of the problems that are reported.
        done: called after every run.

    Returns:
        The rate, what was found with the others, and the metrics over the seeds.
    """
    finals = {}
    for rate in RATES:
        finals[rate] = run(setup, family, rate, TUNING).trace[-1][1]["value"]
        done()
    best = min(RATES, key=lambda rate: (finals[rate], rate))
    runs = []
    for seed in seeds:
        runs.append(run(setup, family, best, seed))
        done()
    limits = setup.limits()
    curves = {name: _curve([r.seen(name, limits) for r in runs]) for name in METRICS}
    return {
        "rate": best,
        "tried": {str(rate): rounded(final) for rate, final in finals.items()},
        "ticks": min(len(r.trace) - 1 for r in runs),
        "failed_solves": sum(r.failed for r in runs),
        **curves,
    }


def run(setup: Setup, family: Family, rate: float, seed: int) -> Run:
    """One run, until the budget is spent or nothing can be hoped for."""
    quadratic = draw(setup.spectra, seed, convex=True)
    work, lowest = Work(), float(quadratic.minimum())
    engine = build(
        quadratic,
        family.make(family.running),
        quadratic.start,
        inner_rate=setup.inner_rate,
        outer_rate=rate,
        repeat=REPEAT,
        batch=setup.batch,
        seed=seed,
        work=work,
    )
    trace, failed = [(0, _metrics(quadratic, engine, lowest))], 0
    hopeless = HOPELESS * trace[0][1]["value"]
    while True:
        failed += _failures(engine.step())
        if work.evaluations > setup.budget:
            return Run(trace, failed)
        metrics = _metrics(quadratic, engine, lowest)
        if not metrics["value"] < hopeless:
            return Run([*trace, (work.evaluations, dict.fromkeys(METRICS, math.inf))], failed)
        trace.append((work.evaluations, metrics))


def _metrics(quadratic: Quadratic, engine: mlo.Engine, lowest: float) -> dict[str, float]:
    found = quadratic.metrics(*present(engine))
    found["gap"] = found.pop("value_func") - lowest
    return found


def _failures(record: mlo.TickRecord) -> int:
    return sum(r.info.outcome.failed for move in record.moves for r in move.responses)


def _curve(runs: Sequence[Sequence[float]]) -> dict[str, list]:
    """Median and quartiles of several runs at each point."""
    points = [spread(values) for values in zip(*runs, strict=True)]
    return {
        "median": [point["median"] for point in points],
        "lower": [point["quartiles"][0] for point in points],
        "upper": [point["quartiles"][1] for point in points],
    }
