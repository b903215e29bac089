"""The seam through which libraries offer measurements to the command line."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import rich.console
from pydantic import Field
from rich.table import Table

from mlo.plugins import Catalogue
from mlo.section import Section
from mlo.threads import threads
from mlo.versions import environment


class BenchmarkConfig(Section):
    """Base of the settings of benchmarks: unknown keys are errors, and nothing changes later.

    Attributes:
        threads: CPU threads of torch.
    """

    threads: int = Field(1, ge=1, description="CPU threads")


ConfigT = TypeVar("ConfigT", bound=BenchmarkConfig)


@dataclasses.dataclass(frozen=True)
class BenchmarkResults:
    """What a benchmark has found.

    Attributes:
        numbers: plain values, for the file.
        tables: the same for people.
        notes: sentences below the tables.
    """

    numbers: Mapping[str, Any]
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


class Benchmark(abc.ABC, Generic[ConfigT]):
    """A measurement with a validated configuration.

    A library offers an instance through the entry-point group `mlo.benchmarks`; `mlo bench` finds
    it there by `name` and makes an option of every field of `config`.

    Attributes:
        name: what the user types.
        summary: one line, shown by `mlo list`.
        config: the settings with their defaults; the descriptions of its fields are the help.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    config: type[ConfigT]

    @abc.abstractmethod
    def run(self, config: ConfigT, console: rich.console.Console) -> BenchmarkResults:
        """Measure; `console` is for progress, results are returned."""


BENCHMARKS: Catalogue[Benchmark[Any]] = Catalogue("mlo.benchmarks", Benchmark, "benchmark")  # type: ignore[type-abstract]
"""The benchmarks, which packages offer through the entry-point group `mlo.benchmarks`."""


def measure(
    benchmark: Benchmark[Any], config: BenchmarkConfig, console: rich.console.Console
) -> tuple[BenchmarkResults, dict[str, Any]]:
    """Run a benchmark on the threads that its settings ask for.

    Args:
        benchmark: what to run.
        config: its settings.
        console: for progress.

    Returns:
        The results, and what is to be written to a file: name, environment, settings, numbers.
    """
    with threads(config.threads):
        results = benchmark.run(config, console)
        written = {
            "benchmark": benchmark.name,
            "environment": environment(),
            "settings": config.model_dump(mode="json"),
            **results.numbers,
        }
    return results, written
