"""The results of the reweighting experiment as numbers and as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from problems.lfm.config import ReweightingConfig
from problems.lfm.experiment import NETWORKS, Repetition

WEIGHTS = ("clean", "corrupted")


def numbers(repetitions: Sequence[Repetition]) -> dict[str, Any]:
    """Gather the results as plain values: every seed, then mean and spread over the seeds.

    The spread is the sample standard deviation over the seeds, None for a single one. Accuracies
    are those after the last tick.
    """
    by_seed = [_of_seed(repetition) for repetition in repetitions]
    columns = {kind: _columns(by_seed, kind) for kind in ("accuracy", "weight")}
    return {
        "mean": {k: {n: statistics.fmean(v) for n, v in c.items()} for k, c in columns.items()},
        "spread": {k: {n: spread(v) for n, v in c.items()} for k, c in columns.items()},
        "seeds": by_seed,
    }


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None where there is one value only."""
    if len(values) < 2:
        return None
    # The statistics module does not take NaN, which a run that diverged leaves behind.
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def _columns(by_seed: Sequence[dict[str, Any]], kind: str) -> dict[str, list[float]]:
    """Name -> the values of those seeds that have one."""
    names = dict.fromkeys(name for seed in by_seed for name in seed[kind])
    return {name: [s[kind][name] for s in by_seed if name in s[kind]] for name in names}


def table(config: ReweightingConfig, results: dict[str, Any]) -> Table:
    """Draw the results: a row for each seed, then mean and spread.

    Args:
        config: the experiment, for the title.
        results: what `numbers` returned.
    """
    weights = list(results["mean"]["weight"])
    drawn = Table(
        title=f"{describe(config)}: test accuracy in % after {config.ticks} ticks"
        + (", and mean weight a of the training examples" if weights else ""),
        box=box.SIMPLE_HEAD,
    )
    drawn.add_column("seed")
    for name in (*NETWORKS, *(f"a {name}" for name in weights)):
        drawn.add_column(name, justify="right")
    for row in results["seeds"]:
        drawn.add_row(str(row["seed"]), *_cells(row, weights))
    drawn.add_section()
    drawn.add_row("mean", *_cells(results["mean"], weights), style="bold")
    drawn.add_row("spread", *_cells(results["spread"], weights))
    return drawn


def describe(config: ReweightingConfig) -> str:
    """Name the data in a few words."""
    noise = f"{config.noise} noise {config.rate:g}" if config.noisy else "no label noise"
    tail = "" if config.imbalance is None else f", imbalance {config.imbalance:g}"
    return f"{config.dataset}, {noise}{tail}"


def _of_seed(repetition: Repetition) -> dict[str, Any]:
    gap = repetition.gap
    return {
        "seed": repetition.seed,
        "accuracy": repetition.accuracy,
        "weight": {} if gap is None else {"clean": gap.clean, "corrupted": gap.corrupted},
        "curves": repetition.curves,
    }


def _cells(row: dict[str, Any], weights: Sequence[str]) -> list[str]:
    accuracies = [_cell(row["accuracy"][name], 100, 1) for name in NETWORKS]
    return accuracies + [_cell(row["weight"].get(name), 1, 3) for name in weights]


def _cell(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"
