"""The error of one hypergradient against its work, at fixed points."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

import mlo
from problems.benchmarks.bilevel_quadratic.memory import peak_bytes
from problems.benchmarks.bilevel_quadratic.methods import Family
from problems.benchmarks.bilevel_quadratic.problem import Quadratic
from problems.benchmarks.bilevel_quadratic.program import NEVER, Point, build
from problems.benchmarks.bilevel_quadratic.spread import rounded, spread
from problems.benchmarks.bilevel_quadratic.work import Work

DISTANCES = (0.0, 0.01)
"""How far the inner variable stands from its solution, relative to the solution's length."""

BATCH_RATE = 0.5
"""Inner learning rate with batches, whose Hessians have larger eigenvalues than the whole."""


def standing(quadratic: Quadratic, distance: float) -> Point:
    """A point whose inner variable is that far off, in a random direction."""
    direction, x = quadratic.start
    z = quadratic.solution(x)
    return z + distance * z.norm() / direction.norm() * direction, x


def measure(
    family: Family,
    value: int,
    quadratics: Sequence[Quadratic],
    distance: float,
    batch: int | None = None,
) -> dict[str, Any]:
    """One value of the knob: errors over all problems, the most work, the worst outcome.

    Args:
        family: the method.
        value: of its knob.
        quadratics: the problems.
        distance: how far off the inner problems stand.
        batch: samples that the losses are made of; by default all.
    """
    errors, works, infos = [], [], []
    rate = 1.0 if batch is None else BATCH_RATE
    for seed, quadratic in enumerate(quadratics):
        point, work = standing(quadratic, distance), Work()
        engine = build(
            quadratic,
            family.make(value),
            point,
            inner_rate=rate,
            warmup=NEVER,
            batch=batch,
            seed=10 * seed,
            work=work,
        )
        found, (record,) = _ask(engine, family.moves(value))
        exact = quadratic.hypergradient(point[1])
        errors.append(float((found["x"] - exact).norm() / exact.norm()))
        works.append(work)
        infos.append(record.info)
    most = max(works, key=lambda work: work.evaluations)
    worst = max(infos, key=lambda info: int(info.code))
    return {
        "value": value,
        "evaluations": most.evaluations,
        "gradients": most.gradients,
        "products": most.products,
        "error": spread(errors),
        "outcome": worst.outcome.name.lower(),
    }


def costs(family: Family, value: int, quadratic: Quadratic, repeats: int) -> dict[str, Any]:
    """Time and peak memory of one hypergradient, with the moves that it needs.

    The memory is counted in vectors of the inner problem's size.
    """
    point = standing(quadratic, 0.0)
    moves = family.moves(value)
    engines = [
        build(quadratic, family.make(value), point, warmup=NEVER) for _ in range(repeats + 1)
    ]
    peak = peak_bytes(lambda: _ask(engines[0], moves))  # the first one warms up
    times = []
    for engine in engines[1:]:
        started = time.perf_counter()
        _ask(engine, moves)
        times.append(1e3 * (time.perf_counter() - started))
    vector = point[0].numel() * point[0].element_size()
    return {"milliseconds": spread(times), "memory": rounded(peak / vector)}


def _ask(
    engine: mlo.Engine, moves: int
) -> tuple[dict[str, Tensor], tuple[mlo.ResponseRecord, ...]]:
    """The hypergradient after so many moves of the inner problem."""
    for _ in range(moves):
        engine.step()
    return engine.total_gradient("outer")
