"""The benchmark `engine-cost`: the engine beside a hand-written loop, and as the graph grows."""

from __future__ import annotations

from typing import Any

import rich.console
from pydantic import Field
from rich import box
from rich.table import Table

from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from problems.benchmarks import mistakes, regression
from problems.benchmarks.diamonds import diamonds
from problems.benchmarks.timing import compare


class EngineCostConfig(BenchmarkConfig):
    """How often everything is timed, and how long."""

    repeats: int = Field(15, ge=2, description="how often everything is timed")
    regression_ticks: int = Field(200, ge=1, description="ticks of the regression in one repeat")
    lfm_ticks: int = Field(5, ge=1, description="ticks of Learning From Mistakes in one repeat")


class EngineCost(Benchmark[EngineCostConfig]):
    """Times one tick by the engine and by hand, and one hypergradient through rows of diamonds.

    Loops and engine run the same program from the same start, in turn; their losses are compared
    before anything is timed. Ratios are medians over the repeats, with the quartiles.
    """

    name = "engine-cost"
    summary = "The engine beside a hand-written loop, and as the graph grows."
    config = EngineCostConfig

    def run(self, config: EngineCostConfig, console: rich.console.Console) -> BenchmarkResults:
        """Measure both."""
        repeats = config.repeats
        cases = {
            "logistic regression, learned decay": compare(
                regression.engine, regression.loop, config.regression_ticks, repeats
            ),
            "LFM, three small networks": compare(
                mistakes.engine, mistakes.loop, config.lfm_ticks, repeats
            ),
        }
        rows = [diamonds(count, repeats) for count in (5, 10, 20, 40, 80)]
        numbers = {"seed": 0, "ticks": cases, "diamonds": rows}
        return BenchmarkResults(numbers, (_ticks(cases), _diamonds(rows)))


def _ticks(cases: dict[str, dict[str, Any]]) -> Table:
    table = Table("one tick", "engine, ms", "by hand, ms", "ratio (quartiles)", box=box.SIMPLE_HEAD)
    for name, case in cases.items():
        low, high = case["quartiles"]
        ratio = f"{case['ratio']:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, f"{case['engine_ms']:.2f}", f"{case['loop_ms']:.2f}", ratio)
    return table


def _diamonds(rows: list[dict[str, Any]]) -> Table:
    table = Table("diamonds", "paths", "loss evaluations", "seconds", box=box.SIMPLE_HEAD)
    for row in rows:
        cells = (row["diamonds"], f"{row['paths']:.1e}", row["loss evaluations"])
        table.add_row(*map(str, cells), f"{row['seconds']:.3f}")
    return table


benchmark = EngineCost()
