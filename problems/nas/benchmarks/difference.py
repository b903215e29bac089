"""The benchmark `nas-difference`: finite differences beside exact products, along searches."""

from __future__ import annotations

from typing import Any

import rich.console
from pydantic import Field

from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from problems.nas.benchmarks.comparing import follow, make_search
from problems.nas.benchmarks.difference_page import difference_rows
from problems.nas.config import NASConfig
from problems.tables import as_table

RADII = {"float32": (1e-1, 1e-2, 1e-3), "float64": (1e-2, 1e-6, 1e-8)}
"""dtype of a search -> radii that are compared in it; 0.01 is that of DARTS."""

SPACES: dict[str, dict[str, Any]] = {
    "cells": {"dataset": "digits", "space": "cell"},
    "chain": {"dataset": "mnist1d", "space": "macro"},
}
"""Part of the measurement -> its data and search space."""


class NasDifferenceConfig(BenchmarkConfig):
    """Length and size of the searches, and how often they compare."""

    seeds: int = Field(3, ge=1, description="repetitions of each search in float32")
    controls: int = Field(1, ge=0, description="how many of them are made in float64 too")
    ticks: int = Field(80, ge=1, description="batches of a search")
    every: int = Field(4, ge=1, description="ticks between two comparisons")
    nodes: int = Field(2, ge=1, description="nodes of a cell")
    cell_layers: int = Field(3, ge=3, description="number of cells")
    cell_channels: int = Field(4, ge=4, description="channels of the first cells")
    chain_layers: int = Field(6, ge=1, description="layers of the chain")
    chain_channels: int = Field(8, ge=1, description="channels of its first layers")
    batch: int = Field(64, ge=2, description="examples of a batch")

    def search(self, part: str) -> NASConfig:
        """The configuration of the recipe for one part of the measurement."""
        cell = part == "cells"
        return NASConfig(
            **SPACES[part],
            programs=("darts",),
            seeds=self.seeds,
            nodes=self.nodes,
            threads=self.threads,
            lookahead=True,
            search={
                "ticks": self.ticks,
                "channels": self.cell_channels if cell else self.chain_channels,
                "layers": self.cell_layers if cell else self.chain_layers,
                "train_batch": self.batch,
                "valid_batch": self.batch,
                # Rates of the architecture as published, for longer searches than these.
                "architecture": {"rate": 3e-4},
                "lfm": {"rate": 1e-3},
            },
        )


class NasDifference(Benchmark[NasDifferenceConfig]):
    """Follows searches by exact products, and compares differences at every n-th step.

    The first searches are made twice, the second time in float64, from the same start and on the
    same batches, where smaller radii can be told from rounding.
    """

    name = "nas-difference"
    summary = "How far finite differences are from exact products along an architecture search."
    config = NasDifferenceConfig

    def run(self, config: NasDifferenceConfig, console: rich.console.Console) -> BenchmarkResults:
        """Make all searches."""
        parts = {part: _part(config.search(part), part, config, console) for part in SPACES}
        numbers = {"parts": parts}
        table = as_table("Differences beside exact products", difference_rows(numbers))
        return BenchmarkResults(numbers, (table,), (_NOTE,))


_NOTE = (
    "Medians over readings and seeds, of the first and of the last quarter of the search. A "
    "product is the part of the architecture's gradient that goes through the weights."
)


def _part(
    search: NASConfig, part: str, config: NasDifferenceConfig, console: rich.console.Console
) -> dict[str, Any]:
    """All searches in one space."""
    seeds = {"float32": search.seed_range, "float64": search.seed_range[: config.controls]}
    runs = []
    for dtype, radii in RADII.items():
        for seed in seeds[dtype]:
            console.print(f"{part}, seed {seed}, {dtype}")
            made = make_search(search, seed, radii, double=dtype == "float64")
            readings = follow(made, config.every)
            runs.append(
                {
                    "seed": seed,
                    "dtype": dtype,
                    "accuracy": made.accuracy(),
                    "readings": readings,
                }
            )
    return {"recipe": search.model_dump(mode="json", exclude={"evaluation"}), "runs": runs}


benchmark = NasDifference()
