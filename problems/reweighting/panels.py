"""Figures of several panels under one title, as wide as a card of a report's page."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlo.report.style import WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 7.4
"""Of a figure with several columns, in inches: text has its own size on the page."""

_LETTERS = 12.5
"""Of a title, an inch."""


def panels(
    names: Sequence[str], columns: int, height: float, words: str
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each name; call it within `styled`.

    Args:
        names: titles of the panels.
        columns: at most so many panels beside each other.
        height: of a panel, in inches; a single one gets a quarter more.
        words: title of the figure; broken into lines.
    """
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    width = WIDTH if columns == 1 else _WIDE
    lines = [line for part in words.split("\n") for line in textwrap.wrap(part, _fit(width))]
    tall = rows * height * (1.25 if columns == 1 else 1)
    figure = new_figure(width, tall + 0.17 * len(lines) + 0.35)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)
    drawn = [figure.add_subplot(rows, columns, number + 1) for number in range(len(names))]
    for axes, name in zip(drawn, names, strict=True):
        axes.set_title(name, loc="left")
    return figure, drawn


def class_axis(axis: Any, classes: Sequence[int], most: int = 10) -> None:
    """Put class numbers at an axis on which the classes lie at 0, 1, ...

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
        classes: in the order in which they lie there.
        most: so many numbers fit.
    """
    steps = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    step = next(step for step in steps if len(classes) <= most * step)
    places = range(0, len(classes), step)
    axis.set_ticks(list(places), [str(classes[place]) for place in places])


def _fit(width: float) -> int:
    return int(_LETTERS * width)
