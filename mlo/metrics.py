"""The final metrics of a job: one number for each seed, stage, evaluation and metric."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

Key = tuple[str, str, str]
"""Stage, evaluation and metric."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """The last value of one metric in one stage of one repetition."""

    seed: int
    stage: str
    evaluation: str
    name: str
    value: float

    @property
    def key(self) -> Key:
        """What is measured, whatever the seed."""
        return self.stage, self.evaluation, self.name


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation, NaN where a value is not finite, None where there is but one."""
    if len(values) < 2:
        return None
    # The statistics module does not take NaN, which a run that diverged leaves behind.
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def by_key(metrics: Iterable[Metric]) -> dict[Key, dict[int, float]]:
    """What is measured -> seed -> value, in the order of their first appearance."""
    found: dict[Key, dict[int, float]] = {}
    for metric in metrics:
        found.setdefault(metric.key, {})[metric.seed] = metric.value
    return found


def heading(key: Key) -> str:
    """What is measured in a few words; a metric that bears its evaluation's name is named once."""
    stage, evaluation, name = key
    return " ".join([stage, evaluation] if name == evaluation else [stage, evaluation, name])


def summary(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Mean, spread and the value of every seed, as plain values, an entry for each key."""
    return [
        {
            "stage": stage,
            "evaluation": evaluation,
            "metric": name,
            "mean": statistics.fmean(of.values()),
            "spread": spread(list(of.values())),
            "seeds": {str(seed): value for seed, value in of.items()},
        }
        for (stage, evaluation, name), of in by_key(metrics).items()
    ]


def as_csv(metrics: Iterable[Metric]) -> str:
    """One line a metric, under a line of headings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "stage", "evaluation", "metric", "value"])
    writer.writerows([m.seed, m.stage, m.evaluation, m.name, repr(m.value)] for m in metrics)
    return text.getvalue()


def as_table(metrics: Iterable[Metric], *, title: str) -> Table:
    """One row for each thing that is measured: mean and spread over the seeds, then every seed."""
    found = by_key(metrics)
    seeds = sorted({seed for of in found.values() for seed in of})
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("final metric", overflow="fold")
    for name in ("mean", "spread", *(f"seed {seed}" for seed in seeds)):
        table.add_column(name, justify="right")
    for key, of in found.items():
        around = spread(list(of.values()))
        cells = [of.get(seed) for seed in seeds]
        row = [statistics.fmean(of.values()), around, *cells]
        table.add_row(heading(key), *("-" if v is None else f"{v:.4g}" for v in row))
    return table
