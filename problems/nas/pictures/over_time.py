"""Curves of a search: its skip connections, and how exact its products are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from mlo.report.axes import log_axis, tick_axis
from mlo.report.style import HEIGHT, MUTED, Look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 7.4
"""Inches of two panels, as wide as a card of a report's page."""

Array = numpy.ndarray[Any, Any]
Values = Sequence[float] | Array


def skips_figure(
    series: Mapping[str, Mapping[int, tuple[Values, Values]]], most: int, title: str
) -> Figure:
    """How many skip connections the derived network has, over the ticks; within `styled`.

    A thick line a program, the mean over the seeds that were read at a tick, and a thin one a
    seed. At the dotted line nothing else is left: the collapse that searches by gradients know.

    Args:
        series: program -> seed -> (ticks, counts).
        most: how many skip connections there can be.
        title: of the picture.
    """
    figure = new_figure(_WIDE, HEIGHT + 0.3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    axes = figure.add_subplot(ylabel="skip connections")
    tick_axis(axes)
    axes.axhline(most, color=MUTED, linewidth=1.2, linestyle=":")
    axes.annotate(
        f"all {most}",
        (1, most),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=MUTED,
    )
    for number, (name, seeds) in enumerate(series.items()):
        look = Look(number)
        if len(seeds) > 1:
            for ticks, counts in seeds.values():
                axes.plot(ticks, counts, color=look.color, linewidth=0.8, alpha=0.4)
        ticks, means = mean_over_seeds(list(seeds.values()))
        axes.plot(ticks, means, color=look.color, linewidth=2.0, linestyle=look.dashes, label=name)
    axes.set_ylim(-0.04 * most, 1.06 * most)
    _whole_numbers(axes)
    if len(series) > 1:
        _legend(figure, axes, len(series))
    return figure


def mean_over_seeds(seeds: Sequence[tuple[Values, Values]]) -> tuple[Array, Array]:
    """All ticks at which a seed was read, and there the mean of the seeds that were."""
    if not seeds:
        return numpy.empty(0), numpy.empty(0)
    ticks = numpy.concatenate([numpy.asarray(one) for one, _ in seeds])
    values = numpy.concatenate([numpy.asarray(one, dtype=float) for _, one in seeds])
    places, which = numpy.unique(ticks, return_inverse=True)
    return places, numpy.bincount(which, values) / numpy.bincount(which)


def difference_figure(series: Mapping[str, tuple[Values, Values, Values]], title: str) -> Figure:
    """How far approximate products are from exact ones, over the ticks; within `styled`.

    Above the cosine of the angle between the two, below the length of their difference relative
    to that of the exact one, as a logarithm. What is not finite is a gap, and so is an error of
    zero.

    Args:
        series: what was compared, such as a radius -> (ticks, cosine, relative error).
        title: of the picture.
    """
    figure = new_figure(_WIDE, 1.75 * HEIGHT)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.set_ylabel("cosine")
    lower.set_ylabel("relative error")
    tick_axis(lower)
    upper.axhline(1, color=MUTED, linewidth=1.2, linestyle=":")
    for number, (name, (ticks, cosine, error)) in enumerate(series.items()):
        look = Look(number)
        how: dict[str, Any] = {"color": look.color, "linewidth": 1.5, "linestyle": look.dashes}
        for axes, values in ((upper, cosine), (lower, error)):
            shown = _drawable(values, positive=axes is lower)
            mark = "o" if numpy.isfinite(shown).sum() == 1 else None
            axes.plot(ticks, shown, label=name, marker=mark, markersize=3, **how)
    _log_where_positive(lower)
    if len(series) > 1:
        _legend(figure, upper, len(series))
    return figure


def _drawable(values: Values, *, positive: bool) -> Array:
    found = numpy.asarray(values, dtype=float)
    shown = numpy.isfinite(found) & ((found > 0) | (not positive))
    return numpy.where(shown, found, numpy.nan)


def _log_where_positive(axes: Axes) -> None:
    if any(numpy.isfinite(line.get_ydata()).any() for line in axes.lines):
        log_axis(axes)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, axes: Axes, count: int) -> None:
    handles = axes.get_legend_handles_labels()
    longest = max(map(len, handles[1]))
    columns = max(1, min(count, int(90 / (longest + 7))))
    figure.legend(*handles, loc="outside lower left", ncols=columns)
