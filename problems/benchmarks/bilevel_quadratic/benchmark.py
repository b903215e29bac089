"""The benchmark `bilevel-quadratic`: hypergradients against their work, and what they lead to."""

from __future__ import annotations

from typing import Any

import rich.console
from pydantic import Field
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from problems.benchmarks.bilevel_quadratic import accuracy, descent
from problems.benchmarks.bilevel_quadratic.methods import FAMILIES
from problems.benchmarks.bilevel_quadratic.problem import Spectra, draw
from problems.benchmarks.bilevel_quadratic.rendering import accuracy_rows, batch_rows, descent_rows

CONDITIONS = (10, 100, 1000)
"""Condition numbers of the inner problem at the fixed points."""

PARTS = (16, 8, 4, 2, 1)
"""Batches an epoch, where hypergradients of batches are compared with that of the whole."""

RUNS = ((10, 1.0, None), (100, 1.0, None), (10, accuracy.BATCH_RATE, 4))
"""Condition number, inner rate, and batches an epoch (`None`: all samples at once) of the runs."""


class BilevelQuadraticConfig(BenchmarkConfig):
    """Sizes, seeds and how long."""

    repeats: int = Field(5, ge=2, description="how often every hypergradient is timed")
    seeds: int = Field(5, ge=2, description="problems over which median and quartiles are taken")
    size: int = Field(100, ge=2, description="size of the inner and of the outer variable")
    samples: int = Field(1024, ge=4, description="samples of each function")
    largest: int = Field(2048, ge=1, description="bound on iterations and terms")
    budget: int = Field(1500, ge=1, description="gradient evaluations of a run")


class BilevelQuadratic(Benchmark[BilevelQuadraticConfig]):
    """Measures every method of `methods.FAMILIES` on quadratic problems solved by matrices.

    At fixed points: the relative error of the hypergradient, gradient evaluations (counted in the
    losses), milliseconds and peak memory as the method's knob turns; with the inner problem at its
    solution, and off it. In runs: `value`, `inner_distance` and the gap of `value_func` against
    gradient evaluations, with the rate that did best on a problem of its own.
    """

    name = "bilevel-quadratic"
    summary = "What hypergradients cost and are worth, on quadratic problems solved by matrices."
    config = BilevelQuadraticConfig

    def run(
        self, config: BilevelQuadraticConfig, console: rich.console.Console
    ) -> BenchmarkResults:
        """Measure both."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), console=console, disable=console is None
        ) as progress:
            fixed = _fixed(config, progress)
            batches = _batches(config, progress)
            runs = _runs(config, progress)
        numbers = {
            "seeds": list(range(config.seeds)),
            "tuning_seed": descent.TUNING,
            "fixed_points": fixed,
            "batches": batches,
            "runs": runs,
        }
        tables = (
            _table("one hypergradient", accuracy_rows(numbers)),
            _table("hypergradients of batches", batch_rows(numbers)),
            _table("runs", descent_rows(numbers)),
        )
        return BenchmarkResults(numbers, tables)


def _fixed(config: BilevelQuadraticConfig, progress: Progress) -> list[dict[str, Any]]:
    steps = [family.within(config.largest) for family in FAMILIES]
    total = len(CONDITIONS) * len(accuracy.DISTANCES) * sum(map(len, steps))
    task = progress.add_task("fixed points", total=total)
    found = []
    for condition in CONDITIONS:
        spectra = _spectra(config, condition)
        quadratics = [draw(spectra, seed) for seed in range(config.seeds)]
        for distance in accuracy.DISTANCES:
            for family, values in zip(FAMILIES, steps, strict=True):
                points = []
                for value in values:
                    point = accuracy.measure(family, value, quadratics, distance)
                    if distance == 0:
                        point |= accuracy.costs(family, value, quadratics[0], config.repeats)
                    points.append(point)
                    progress.advance(task)
                place = {"condition": condition, "distance": distance, "method": family.label}
                found.append({**place, "knob": family.knob, "points": points})
    return found


def _batches(config: BilevelQuadraticConfig, progress: Progress) -> list[dict[str, Any]]:
    task = progress.add_task("batches", total=len(PARTS) * len(FAMILIES))
    condition = CONDITIONS[0]
    spectra = _spectra(config, condition)
    quadratics = [draw(spectra, seed) for seed in range(config.seeds)]
    found = []
    for family in FAMILIES:
        for parts in PARTS:
            batch = config.samples // parts
            point = accuracy.measure(family, family.running, quadratics, 0.0, batch)
            place = {"condition": condition, "batch": batch, "method": family.label}
            found.append({**place, "knob": family.knob, **point})
            progress.advance(task)
    return found


def _runs(config: BilevelQuadraticConfig, progress: Progress) -> list[dict[str, Any]]:
    each = len(descent.RATES) + config.seeds
    task = progress.add_task("runs", total=len(RUNS) * len(FAMILIES) * each)
    found = []
    for condition, inner_rate, parts in RUNS:
        setup = descent.Setup(
            _spectra(config, condition),
            inner_rate,
            None if parts is None else config.samples // parts,
            config.budget,
        )
        curves = {}
        for family in FAMILIES:
            tuned = descent.tuned(
                setup, family, range(config.seeds), lambda: progress.advance(task)
            )
            curves[family.label] = {"setting": repr(family.make(family.running)), **tuned}
        found.append(
            {
                "condition": condition,
                "inner_rate": inner_rate,
                "batch": setup.batch,
                "repeat": descent.REPEAT,
                "evaluations": setup.limits(),
                "methods": curves,
            }
        )
    return found


def _spectra(config: BilevelQuadraticConfig, condition: int) -> Spectra:
    return Spectra(
        mu_inner=1 / condition,
        n_samples_inner=config.samples,
        n_samples_outer=config.samples,
        dim_inner=config.size,
        dim_outer=config.size,
    )


def _table(title: str, rows: list[list[str]]) -> Table:
    table = Table(*rows[0], title=title, box=box.SIMPLE_HEAD)
    for row in rows[1:]:
        table.add_row(*row)
    return table


benchmark = BilevelQuadratic()
