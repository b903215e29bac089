"""Pages whose tables and pictures are rendered from committed results."""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlo.errors import ConfigurationError, listed
from mlo.files import read_json, write_bytes, write_text
from mlo.report.style import styled
from problems.tables import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parents[1]
"""The folder of the repository, where the package is used from one."""

Numbers = Mapping[str, Any]
"""What a file of results holds."""

_TABLE = re.compile(r"^<!-- table: (\w+) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def as_markdown(rows: Rows) -> str:
    """A table as Markdown has it."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(
    page: str, text: str, tables: Mapping[str, Callable[[Numbers], Rows]], numbers: Numbers
) -> str:
    """The text with every table between its marks rendered from the results.

    Args:
        page: its name, for messages.
        text: holds each table once, between ``<!-- table: NAME -->`` and ``<!-- end -->``.
        tables: name -> what renders it.
        numbers: the results.

    Raises:
        ConfigurationError: the text asks for a table that there is not, or leaves one out.
    """
    names = _TABLE.findall(text)
    if sorted(names) != sorted(tables):
        raise ConfigurationError(
            f"{page}: expected the tables {listed(tables)} once each, between "
            f"'<!-- table: NAME -->' and '<!-- end -->', found {listed(names)}; mend the marks"
        )

    def rendered(match: re.Match[str]) -> str:
        table = as_markdown(tables[match[1]](numbers))
        return f"<!-- table: {match[1]} -->\n{table}\n<!-- end -->"

    return _TABLE.sub(rendered, text)


def publish(
    results: pathlib.Path,
    page: pathlib.Path,
    tables: Mapping[str, Callable[[Numbers], Rows]],
    pictures: Mapping[str, Callable[[Numbers], Figure]],
) -> None:
    """Draw the pictures and write the tables anew.

    Args:
        results: the file of the benchmark.
        page: the page.
        tables: name in the page -> what renders it.
        pictures: place in the repository -> what draws it.
    """
    numbers = read_json(results)
    for place, draw in pictures.items():
        with styled():
            data = io.BytesIO()
            draw(numbers).savefig(data, format="png", dpi=120, facecolor="white")
        write_bytes(ROOT / place, data.getvalue())
    text = page.read_text(encoding="utf-8")
    write_text(page, with_tables(str(page), text, tables, numbers))
