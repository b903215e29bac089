"""`mlo bench`: the measurements that installed packages offer."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from mlo.benchmark import BENCHMARKS, Benchmark, BenchmarkConfig, measure
from mlo.cli.list import show_offers
from mlo.cli.offered import OfferedGroup, Options, summary
from mlo.cli.output import check_new_file, new_console, save, show_folded
from mlo.files import json_text


def run_benchmark(benchmark: Benchmark[Any], config: BenchmarkConfig, options: Options) -> None:
    """Measure, print, and write where that is asked for."""
    out = options["out"]
    if out is not None:
        check_new_file(out)
    console = new_console()
    results, written = measure(benchmark, config, console)
    for table in results.tables:
        console.print(table)
    for note in results.notes:
        show_folded(console, note)
    if out is not None:
        save(console, out, json_text(written, indent=2))


def _list() -> None:
    """List the benchmarks where none is named."""
    if click.get_current_context().invoked_subcommand is None:
        console = new_console()
        show_offers(console, "benchmarks", BENCHMARKS.find, lambda name: summary(BENCHMARKS, name))


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--out"],
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=pathlib.Path),
            help="write settings, environment and numbers to a new JSON file",
        )
    ]


bench = OfferedGroup(
    "bench",
    BENCHMARKS,
    run_benchmark,
    options=_options,
    help="Run a benchmark; without a name, list them.",
    callback=_list,
)
