"""`python -m problems.benchmarks.bilevel_quadratic.publish`: pictures and tables of the guide.

Draws docs/images/*.png from the committed results, and writes the tables of docs/choosing.md anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from problems import publishing, tables
from problems.benchmarks.bilevel_quadratic.pictures import accuracy_figure, descent_figure
from problems.benchmarks.bilevel_quadratic.rendering import (
    accuracy_rows,
    batch_rows,
    bias_rows,
    cost_rows,
    descent_rows,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = publishing.ROOT
RESULTS = ROOT / "benchmarks/results/bilevel_quadratic.json"
GUIDE = ROOT / "docs/choosing.md"

TABLES: Mapping[str, Callable[[Mapping[str, Any]], tables.Rows]] = {
    "accuracy": accuracy_rows,
    "bias": bias_rows,
    "cost": cost_rows,
    "batches": batch_rows,
    "runs": descent_rows,
}
"""Name in the guide -> what renders it."""

PICTURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "docs/images/hypergradient_error.png": accuracy_figure,
    "docs/images/bilevel_runs.png": descent_figure,
}


def with_tables(text: str, numbers: Mapping[str, Any]) -> str:
    """The text of the guide with every table rendered from the results."""
    return publishing.with_tables("docs/choosing.md", text, TABLES, numbers)


if __name__ == "__main__":
    publishing.publish(RESULTS, GUIDE, TABLES, PICTURES)
