"""The numbers of a run as a table that fits to a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import rich.console
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mlo.callbacks.folding import fold
from mlo.callbacks.numbers import Answer, Numbers, Row

_WARNING = "bold red"

_TITLES = ("problem", "loss", "gradient norm", "through", "residual", "products")

_ROOM = ((72, 6), (50, 5), (36, 3), (0, 2))
"""From so many columns on there is room for so many titles."""

Cells = tuple[Text, ...]
"""One line of the table, a cell for every title."""


def drawn(
    numbers: Numbers, columns: int, lines: int, console: rich.console.Console
) -> list[RenderableType]:
    """Draw the numbers in at most so many lines; what does not fit is counted.

    Args:
        numbers: what to draw.
        columns: how wide the drawing may be.
        lines: how high it may be.
        console: where it will be drawn.

    Returns:
        A table of the problems, then lines of failures, of metrics, and of what callbacks say.
    """
    # The problems come first, but leave a third to the notes where both are too many.
    reserved = len(_notes(numbers, lines // 3, columns, console))
    problems, height = _problems(numbers, lines - reserved, columns)
    return [*problems, *_notes(numbers, lines - height, columns, console)]


def _problems(numbers: Numbers, room: int, columns: int) -> tuple[list[RenderableType], int]:
    """The table of the problems in at most so many lines, and how many it takes."""
    if not numbers.rows or room < 2:
        return [], 0
    wide = next(count for least, count in _ROOM if columns >= least)
    titles = _TITLES[: wide if any(row.answers for row in numbers.rows) else min(wide, 3)]
    brief = [[_brief(row)] for row in numbers.rows]
    full = [_rows(row) for row in numbers.rows] if len(titles) > 3 else brief
    for rows in (full, brief):
        height = 1 + sum(map(len, rows))  # with the line of titles
        if height <= room:
            return [_table(rows, titles)], height
    shown = room - 2
    more = _cell(f"... {len(brief) - shown} more problems")
    return [_table(brief[:shown], titles), more], room


def _table(problems: Sequence[Sequence[Cells]], titles: Sequence[str]) -> Table:
    """The lines of the problems under their titles."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in titles:
        name = title in ("problem", "through")
        # Names are shortened first; numbers end at the right of their column.
        table.add_column(
            _cell(title), justify="left" if name else "right", no_wrap=not name, overflow="ellipsis"
        )
    for lines in problems:
        for cells in lines:
            table.add_row(*cells[: len(titles)])
    return table


def _rows(row: Row) -> list[Cells]:
    """The lines of one problem: the first with its own numbers, one for each response."""
    first, *others = row.answers or (None,)
    own = (_cell(row.problem), _number(row.loss), _norm(row))
    blank = (_cell(""),) * len(own)
    return [(*own, *_answer(first)), *((*blank, *_answer(answer)) for answer in others)]


def _brief(row: Row) -> Cells:
    """One line for a problem, with the worst of its responses and how many there are beside it."""
    own = (_cell(row.problem), _number(row.loss), _norm(row))
    if not row.answers:
        return (*own, *_answer(None))
    others = len(row.answers) - 1
    return (*own, *_answer(max(row.answers, key=lambda a: a.badness), others))


def _norm(row: Row) -> Text:
    """The gradient norm, labelled where it is that of a hypergradient."""
    norm = _number(row.gradient_norm)
    return _cell(f"hyper {norm}") if row.answers else norm


def _answer(answer: Answer | None, others: int = 0) -> Cells:
    if answer is None:
        return (_cell(""),) * 3
    style = _WARNING if answer.failure else ""
    residual = "" if answer.residual is None else f"{answer.residual:.1e}"
    name = f"+{others} {answer.problem}" if others else answer.problem
    return tuple(_cell(text, style) for text in (name, residual, str(answer.products)))


def _number(value: float | None) -> Text:
    return _cell("-" if value is None else f"{value:.4g}")


def _cell(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _notes(numbers: Numbers, room: int, columns: int, console: rich.console.Console) -> list[Text]:
    """Failures, metrics, what callbacks say; a third of the lines is for what is not failures."""
    failures = [fold(text, columns, console) for text in numbers.failures]
    metrics = [[line] for text in numbers.evaluations for line in fold(text, columns, console)]
    said = [[line] for text in numbers.lines for line in fold(text, columns, console)]
    failed = _cut(failures, room - min(len(metrics) + len(said), room // 3), "failure")
    left = room - len(failed)
    # Half of what is left is for each, or more where the other one needs less.
    measured = _cut(metrics, left - min(len(said), left // 2), "metric line")
    told = _cut(said, left - len(measured), "line")
    return [*(_cell(line, _WARNING) for line in failed), *map(_cell, [*measured, *told])]


def _cut(notes: Sequence[Sequence[str]], room: int, noun: str) -> list[str]:
    """The lines of as many notes as there is room for; a last line counts the others."""
    lines: list[str] = []
    for i, note in enumerate(notes):
        left = len(notes) - i
        if len(lines) + len(note) + (left > 1) > room:
            return [*lines, f"... {left} more {noun}{'s' * (left > 1)}"][: max(room, 0)]
        lines += note
    return lines
