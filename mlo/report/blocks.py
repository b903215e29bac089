"""What a page is made of, whatever it tells; `page.html` draws each kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mlo.report.chart import Picture
from mlo.report.style import Look

DASH = "–"  # noqa: RUF001 (an en dash, for what is missing)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        strong: set in bold, as what differs from the ordinary.
        bad: in the colour of failures.
        number: set to the right.
        look: of the line of a chart, shown before the text.
    """

    text: str
    strong: bool = False
    bad: bool = False
    number: bool = False
    look: Look | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table; the first cell of each row names it."""

    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    kind: ClassVar[str] = "rows"


@dataclasses.dataclass(frozen=True)
class Cards:
    """Drawings side by side."""

    pictures: Sequence[Picture]
    kind: ClassVar[str] = "cards"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A dependency graph, drawn and as text."""

    picture: Picture
    text: str
    kind: ClassVar[str] = "graph"


@dataclasses.dataclass(frozen=True)
class Own:
    """A drawing that a recipe made: the text of an SVG document."""

    title: str
    svg: str
    kind: ClassVar[str] = "own"


@dataclasses.dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "words"


Block = Rows | Cards | Graph | Own | Words


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: its heading.
        badge: status in a word, or nothing.
        status: status in a sentence.
        notice: what an unfinished run has to say for itself, and the command that goes on.
        facts: (what, value), below the heading.
        sections: the rest.
    """

    title: str
    badge: str
    status: str
    notice: Sequence[str]
    command: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def number(value: float | None, *, strong: bool = False) -> Cell:
    """A number in four digits, or a dash."""
    return Cell(DASH if value is None else f"{value:.4g}", strong=strong, number=True)


def head(*words: str, numbers: int = 0) -> list[Cell]:
    """Headings, the last `numbers` of them of numbers."""
    first = len(words) - numbers
    return [Cell(word, number=i >= first) for i, word in enumerate(words)]
