"""The final metrics of a job: one number for each seed, stage, evaluation and metric."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

Key = tuple[str, str, str]
"""Stage, evaluation and metric."""

_WIDTH = 54
"""Columns of a terminal for numbers; of its 80 the words beside them need the others."""


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


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN where infinities cancel, which `statistics.fmean` refuses."""
    return statistics.mean(values)


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation, NaN where a value is not finite, None where there is but one."""
    if len(values) < 2:
        return None
    # The statistics module does not take NaN, which a run that diverged leaves behind.
    if not all(map(math.isfinite, values)):
        return math.nan
    try:
        return statistics.stdev(values)
    except OverflowError:  # the numbers can be as large as numbers are, but not further apart
        return math.inf


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
            "mean": mean(of.values()),
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
    """One row for each thing that is measured: mean and spread over the seeds, then every seed.

    The single seeds are left out where they are too many for a terminal of 80 columns.
    """
    found = by_key(metrics)
    seeds = sorted({seed for of in found.values() for seed in of})
    columns = _columns(found, seeds)
    table = Table(title=Text(title), box=box.SIMPLE_HEAD)
    table.add_column("final metric", overflow="fold")
    if sum(2 + max(map(len, column)) for column in columns) > _WIDTH:
        columns = columns[:2]
        table.caption = f"over {len(seeds)} seeds"
    for name, *_ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for key, cells in zip(found, zip(*(cells for _, *cells in columns), strict=True), strict=True):
        table.add_row(Text(heading(key)), *cells)
    return table


def _columns(found: Mapping[Key, Mapping[int, float]], seeds: Sequence[int]) -> list[list[str]]:
    """Mean, spread and every seed as columns of text, each below its heading."""
    rows = [
        [mean(of.values()), spread([*of.values()]), *map(of.get, seeds)] for of in found.values()
    ]
    headings = ["mean", "spread", *(f"seed {seed}" for seed in seeds)]
    numbers = [["-" if v is None else f"{v:.4g}" for v in row] for row in rows]
    return [list(column) for column in zip(headings, *numbers, strict=True)]
