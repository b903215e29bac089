"""Tables and their cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich import box
from rich.table import Table

Rows = list[list[str]]
"""A table as text; the first row holds the heads, and what is between ** is bold on a page."""


def cell(value: float | None, scale: float, digits: int) -> str:
    """A number times `scale`, or a dash where there is none."""
    return "-" if value is None else f"{scale * value:.{digits}f}"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard error of the mean, of what is finite; NaN where there is too little."""
    found = [value for value in values if math.isfinite(value)]
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return statistics.mean(found) if found else math.nan, error


def with_error(values: Sequence[float]) -> str:
    """Mean, and in parentheses the standard error; how many failed, where some did."""
    middle, error = mean_and_error(values)
    failed = sum(not math.isfinite(value) for value in values)
    told = f", {failed} of {len(values)} failed" if failed else ""
    return (f"{middle:.1f}" if math.isnan(error) else f"{middle:.1f} ({error:.1f})") + told


def as_table(title: str, rows: Rows) -> Table:
    """The same for the terminal."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column(rows[0][0], no_wrap=True)
    for name in rows[0][1:]:
        table.add_column(name.replace(", ", "\n"), justify="right")
    for row in rows[1:]:
        table.add_row(*(text.replace("**", "") for text in row))
    return table
