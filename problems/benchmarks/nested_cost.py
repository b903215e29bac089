"""The benchmark `nested-cost`: one exact hypergradient of a nested program, by several routes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import rich.console
from pydantic import Field
from rich import box
from rich.table import Table

from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from problems.benchmarks.nested_program import Program
from problems.benchmarks.nested_routes import by_hand, counted


class NestedCostConfig(BenchmarkConfig):
    """How often every route is timed."""

    repeats: int = Field(9, ge=2, description="how often every route is timed")


class NestedCost(Benchmark[NestedCostConfig]):
    """Compares the engine's routes with the explicit one written by hand.

    The latter takes a tangent solve, a product with the Hessian of the Lagrangian and an adjoint
    solve for every product of the middle problem. Both use conjugate gradients to the same
    tolerance, run in turn, in float64.
    """

    name = "nested-cost"
    summary = "One exact hypergradient of a nested program, by several routes."
    config = NestedCostConfig

    def run(self, config: NestedCostConfig, console: rich.console.Console) -> BenchmarkResults:
        """Count products, compare with the explicit route, then time all in turn."""
        program = Program()
        exact, products = by_hand(program)
        engines = {nested: program.engine(nested) for nested in ("exact", "projected", "partial")}
        rows: dict[str, dict[str, Any]] = {"by hand": {"products": products, "difference": 0.0}}
        for nested, engine in engines.items():
            found, products = counted(engine)
            gap = float((found - exact).norm() / exact.norm())
            rows[nested] = {"products": products, "difference": gap}
        routes: dict[str, Callable[[], object]] = {"by hand": lambda: by_hand(program)}
        for nested, engine in engines.items():
            routes[nested] = lambda e=engine: e.hypergradient("penalty")  # type: ignore[misc]
        _time(rows, routes, config.repeats)
        return BenchmarkResults({"routes": rows}, (_table(rows),))


def _time(
    rows: dict[str, dict[str, Any]], routes: dict[str, Callable[[], object]], repeats: int
) -> None:
    times: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(repeats):
        for name, route in routes.items():
            times[name].append(_seconds(route))
    for name, row in rows.items():
        ratios = [a / b for a, b in zip(times[name], times["by hand"], strict=True)]
        row["seconds"] = statistics.median(times[name])
        row["ratio"] = statistics.median(ratios)
        row["quartiles"] = statistics.quantiles(ratios, n=4)[::2]


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table("route", "products", "difference", "s", "ratio (quartiles)", box=box.SIMPLE_HEAD)
    for name, row in rows.items():
        low, high = row["quartiles"]
        table.add_row(
            name if name == "by hand" else f"nested={name}",
            str(row["products"]),
            f"{row['difference']:.1e}",
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
    return table


benchmark = NestedCost()
