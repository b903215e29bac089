"""The benchmark `nas-cost`: passes through each network in one step of a search."""

from __future__ import annotations

from typing import Any

import rich.console
from pydantic import Field
from rich import box
from rich.table import Table

from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from problems.nas.cost import LEAST, Size, tick_cost


class NasCostConfig(BenchmarkConfig):
    """The size of the search; passes depend on none of it."""

    channels: int = Field(16, ge=1, description="channels of the first cells")
    layers: int = Field(8, ge=3, description="number of cells")
    nodes: int = Field(4, ge=1, description="nodes of a cell")
    batch: int = Field(4, ge=2, description="examples of a batch")
    side: int = Field(32, ge=8, description="side of the images")
    encoder: str = Field("resnet18", description="the encoder of LFM")


class NasCost(Benchmark[NasCostConfig]):
    """Counts one tick of DARTS and of LFM by each method, in both orders of moves."""

    name = "nas-cost"
    summary = "Passes through each network in one step of architecture search, and the least."
    config = NasCostConfig

    def run(self, config: NasCostConfig, console: rich.console.Console) -> BenchmarkResults:
        """Count every combination for which the least is derived."""
        size = Size(**config.model_dump(exclude={"threads"}))
        rows: list[dict[str, Any]] = []
        for kind, rule, lookahead in LEAST:
            console.print(f"{kind}, {rule}, lookahead={lookahead}")
            cost = tick_cost(kind, rule, lookahead=lookahead, size=size)  # type: ignore[arg-type]
            rows.append({"program": kind, "method": rule, "lookahead": lookahead, **cost})
        return BenchmarkResults({"ticks": rows}, (_table(rows),), (_NOTE,))


_NOTE = (
    "Passes: forward / backward / backward to mixing weights alone / double backward. Operations "
    "are those of convolutions and matrix products."
)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "program",
        "method",
        "lookahead",
        "network",
        "counted",
        "least",
        "GFLOP",
        box=box.SIMPLE_HEAD,
    )
    for row in rows:
        for name, counted in row["passes"].items():
            table.add_row(
                row["program"],
                row["method"],
                "yes" if row["lookahead"] else "no",
                name,
                " / ".join(map(str, counted.values())),
                " / ".join(map(str, row["least"][name].values())),
                f"{row['operations'] / 1e9:.1f}",
            )
    return table


benchmark = NasCost()
