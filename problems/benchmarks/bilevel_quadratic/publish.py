"""`python -m problems.benchmarks.bilevel_quadratic.publish`: pictures and tables of the guide.

Draws docs/images/*.png from the committed results, and writes the tables of docs/choosing.md anew.
"""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlo.errors import ConfigurationError, listed
from mlo.files import read_json, write_bytes, write_text
from mlo.report.style import styled
from problems.benchmarks.bilevel_quadratic.pictures import accuracy_figure, descent_figure
from problems.benchmarks.bilevel_quadratic.rendering import (
    Rows,
    accuracy_rows,
    as_markdown,
    batch_rows,
    bias_rows,
    cost_rows,
    descent_rows,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks/results/bilevel_quadratic.json"
GUIDE = ROOT / "docs/choosing.md"

TABLES: Mapping[str, Callable[[Mapping[str, Any]], Rows]] = {
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

_TABLE = re.compile(r"^<!-- table: (\w+) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def with_tables(text: str, numbers: Mapping[str, Any]) -> str:
    """The text with every table between its marks rendered from the results.

    Raises:
        ConfigurationError: the text asks for a table that there is not, or leaves one out.
    """
    names = _TABLE.findall(text)
    if sorted(names) != sorted(TABLES):
        raise ConfigurationError(
            f"docs/choosing.md: expected the tables {listed(TABLES)} once each, between "
            f"'<!-- table: NAME -->' and '<!-- end -->', found {listed(names)}; mend the marks"
        )

    def rendered(match: re.Match[str]) -> str:
        table = as_markdown(TABLES[match[1]](numbers))
        return f"<!-- table: {match[1]} -->\n{table}\n<!-- end -->"

    return _TABLE.sub(rendered, text)


def publish() -> None:
    """Draw the pictures and write the tables."""
    numbers = read_json(RESULTS)
    for place, draw in PICTURES.items():
        with styled():
            data = io.BytesIO()
            draw(numbers).savefig(data, format="png", dpi=120, facecolor="white")
        write_bytes(ROOT / place, data.getvalue())
    write_text(GUIDE, with_tables(GUIDE.read_text(encoding="utf-8"), numbers))


if __name__ == "__main__":
    publish()
