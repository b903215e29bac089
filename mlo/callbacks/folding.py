"""Text folded to the columns of a screen."""

from __future__ import annotations

import rich.console
from rich.text import Text

_INDENT = 4
"""Columns by which the lines after the first are set in, where there is room for that."""


def fold(text: str, columns: int, console: rich.console.Console) -> list[str]:
    """Break a text between words into lines of at most so many columns, as wide as they are drawn.

    Args:
        text: any text; it becomes one paragraph, without control characters.
        columns: how wide a line may be.
        console: where it will be drawn.

    Returns:
        The lines, all but the first set in; at least one.
    """
    paragraph = Text(" ".join(printable(text).split()))
    indent = _INDENT if columns >= 5 * _INDENT else 0
    first, *others = paragraph.wrap(console, columns - indent)
    return [first.plain.rstrip(), *(" " * indent + line.plain.rstrip() for line in others)]


def printable(text: str) -> str:
    """The text in one line, with a space for every character that would steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
