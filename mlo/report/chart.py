"""Line charts: what is on them, and how they are drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlo.report.axes import log_axis, tick_axis
from mlo.report.curves import Curve, bin_width, mean_curve
from mlo.report.style import HEIGHT, WIDTH, Look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LETTERS = 60
"""Roughly how many letters of a legend fit into the width of a chart."""

_DECADES = 1.3
"""Powers of ten that positive values must span to get a logarithmic axis."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart: the mean over the seeds, thick, and every seed, thin.

    Attributes:
        label: for the legend.
        seeds: seed -> curve.
        look: number of its `Look`.
    """

    label: str
    seeds: Mapping[int, Curve]
    look: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drawing for a card of the page.

    Attributes:
        title: above it.
        draw: makes the figure; call it within `styled`.
        caption: below it.
    """

    title: str
    draw: Callable[[], Figure]
    caption: str = ""


def line_chart(title: str, label: str, lines: Sequence[Line], *, legend: bool = True) -> Picture:
    """Describe a chart of lines over ticks.

    Args:
        title: above the chart.
        label: of the vertical axis.
        lines: what it shows; one without a value is left out of the drawing, not of the legend.
        legend: name the lines; without, the page has to.
    """
    curves = [curve for line in lines for curve in line.seeds.values()]
    log = _wants_log(curves)
    return Picture(title, lambda: _draw(label, lines, log, legend), _caption(curves, log))


def _draw(label: str, lines: Sequence[Line], log: bool, legend: bool) -> Figure:
    names = [short(line.label) for line in lines] if legend and len(lines) > 1 else []
    columns = _columns(names)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(WIDTH, HEIGHT + 0.21 * max(0, rows - 1))
    axes = figure.add_subplot(ylabel=short(label))
    tick_axis(axes)
    width = bin_width([curve for line in lines for curve in line.seeds.values()])
    handles = [_draw_line(axes, line, width, log) for line in lines]
    if log:
        log_axis(axes)
    if names:
        figure.legend(handles, names, loc="outside upper left", ncols=columns)
    return figure


def _draw_line(axes: Axes, line: Line, width: int, log: bool) -> Any:
    look = Look(line.look)
    binned = [curve.binned(width) for curve in line.seeds.values()]
    if len(binned) > 1:
        for one in binned:
            _plot(axes, one, log, look.color, linewidth=0.7, alpha=0.45)
    mean = mean_curve(binned)
    return _plot(axes, mean, log, look.color, linewidth=1.8, linestyle=look.dashes)


def _plot(
    axes: Axes, binned: Mapping[int, tuple[float, float]], log: bool, color: str, **how: Any
) -> Any:
    ticks = [tick for tick, _ in binned.values()]
    values = [_drawable(value, log) for _, value in binned.values()]
    # A value between two gaps has no neighbour that a line could lead to.
    padded = [math.nan, *values, math.nan]
    alone = [
        (tick, padded[i + 1])
        for i, tick in enumerate(ticks)
        if math.isnan(padded[i]) and math.isnan(padded[i + 2]) and not math.isnan(padded[i + 1])
    ]
    if alone:
        axes.plot(*zip(*alone, strict=True), ".", color=color, markersize=4)
    return axes.plot(ticks, values, color=color, **how)[0]


def _drawable(value: float, log: bool) -> float:
    return value if math.isfinite(value) and (value > 0 or not log) else math.nan


def _wants_log(curves: Sequence[Curve]) -> bool:
    values = [v for curve in curves for v in curve.values if math.isfinite(v)]
    positive = [v for v in values if v > 0]
    if not positive or min(values) < 0 or len(positive) < 0.9 * len(values):
        return False
    return math.log10(max(positive)) - math.log10(min(positive)) > _DECADES


def _caption(curves: Sequence[Curve], log: bool) -> str:
    words = []
    width = bin_width(curves)
    if width > 1:
        words.append(f"Each point is the mean of {width} ticks.")
    broken = sum(curve.broken for curve in curves)
    if broken:
        what = "value is" if broken == 1 else "values are"
        words.append(f"{broken} {what} NaN or infinite: a gap.")
    zeros = sum(value == 0 for curve in curves for value in curve.values) if log else 0
    if zeros:
        words.append(f"{zeros} zeros have no place on a logarithmic axis: a gap.")
    return " ".join(words)


def _columns(names: Sequence[str]) -> int:
    longest = max(map(len, names), default=0) + 7  # the sample of the line
    return max(1, min(len(names), _LETTERS // longest))


def short(name: str, letters: int = 40) -> str:
    """A name of at most so many letters."""
    return name if len(name) <= letters else name[: letters - 1] + "…"
