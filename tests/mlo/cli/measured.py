"""A benchmark that takes no time."""

from __future__ import annotations

COUNTED = """
    import torch
    from pydantic import Field
    from rich.table import Table

    from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults

    class Config(BenchmarkConfig):
        repeats: int = Field(3, ge=1, description="how often it counts")

    class Counted(Benchmark):
        name, summary, config = "counted", "Counts to a number.", Config

        def run(self, config, console):
            table = Table("count", title="counted")
            table.add_row(str(config.repeats))
            numbers = {"count": config.repeats, "inside": torch.get_num_threads()}
            return BenchmarkResults(numbers, (table,), ("a note",))

    benchmark = Counted()
"""
ENTRIES = "[mlo.benchmarks]\ncounted=mlo_cli_counted:benchmark"
