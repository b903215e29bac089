"""Charts of distributions: fans of percentiles over the ticks, and histograms of the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from mlo.distribution import PERCENTS
from mlo.report.axes import tick_axis
from mlo.report.chart import Line, Picture, line_chart, short
from mlo.report.curves import Curve
from mlo.report.style import Look, new_figure
from mlo.report.weights import BANDS, Spread, edges, histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spread_charts(found: Sequence[Spread]) -> list[Picture]:
    """For every evaluation its means, a fan for each metric, and the last histograms.

    Args:
        found: the distributions of a run.
    """
    groups: dict[tuple[str, str], list[Spread]] = {}
    for spread in found:
        groups.setdefault((spread.stage, spread.evaluation), []).append(spread)
    return [
        chart
        for (stage, evaluation), metrics in groups.items()
        for chart in _charts(f"{stage}: {evaluation}", metrics)
    ]


def _charts(title: str, metrics: Sequence[Spread]) -> list[Picture]:
    lines = [Line(one.metric, _means(one), number) for number, one in enumerate(metrics)]
    charts = [line_chart(f"{title}, means", "mean", lines)]
    charts += [_fan(title, one, number, metrics) for number, one in enumerate(metrics)]
    if any(one.final() for one in metrics):
        caption = "The last evaluation, all seeds together."
        draw = lambda: _draw_histograms(metrics)  # noqa: E731 (the picture draws itself later)
        charts.append(Picture(f"{title}, in the end", draw, caption))
    return charts


def _means(spread: Spread) -> dict[int, Curve]:
    return {
        seed: Curve(list(ticks), [float(one["mean"]) for one in ticks.values()])
        for seed, ticks in spread.seeds.items()
    }


def _fan(title: str, spread: Spread, number: int, together: Sequence[Spread]) -> Picture:
    caption = "Bands: 5th to 95th and 25th to 75th percentile; line: median"
    caption += ", means over the seeds." if len(spread.seeds) > 1 else "."
    if spread.broken:
        caption += f" {spread.broken} of the distributions hold NaN or infinity: a gap."
    return Picture(
        f"{title}, {spread.metric}", lambda: _draw_fan(spread, number, together), caption
    )


def _draw_fan(spread: Spread, number: int, together: Sequence[Spread]) -> Figure:
    figure = new_figure()
    axes = figure.add_subplot(ylabel=short(spread.metric))
    tick_axis(axes)
    percentiles = spread.percentiles()
    ticks = list(percentiles)
    rows = numpy.array([percentiles[tick] for tick in ticks]).reshape(len(ticks), len(PERCENTS))
    rows = numpy.where(numpy.isfinite(rows), rows, numpy.nan)
    color = Look(number).color
    if ticks:
        for low, high in BANDS:
            axes.fill_between(ticks, rows[:, low], rows[:, high], color=color, alpha=0.22, lw=0)
        axes.plot(ticks, rows[:, 50], color=color, linewidth=1.8, marker=".", markersize=3)
    # Fans of one evaluation are to be compared, so they share their limits.
    ends = numpy.concatenate([_outer(one) for one in together])
    ends = ends[numpy.isfinite(ends)]
    if len(ends) and ends.min() < ends.max():
        margin = 0.04 * (ends.max() - ends.min())
        axes.set_ylim(ends.min() - margin, ends.max() + margin)
    return figure


def _outer(spread: Spread) -> numpy.typing.NDArray[numpy.float64]:
    low, high = BANDS[0]
    found = [rows[[low, high]] for rows in spread.percentiles().values()]
    return numpy.concatenate([numpy.empty(0), *found])


def _draw_histograms(metrics: Sequence[Spread]) -> Figure:
    figure = new_figure()
    axes = figure.add_subplot(xlabel="value", ylabel="share")
    finals = {number: one.final() for number, one in enumerate(metrics)}
    bars = edges([one for final in finals.values() for one in final])
    for number, final in finals.items():
        if final:
            look, shares = Look(number), histogram(final, bars)
            axes.stairs(shares, bars, fill=True, color=look.color, alpha=0.2)
            axes.stairs(
                shares,
                bars,
                color=look.color,
                linewidth=1.6,
                linestyle=look.dashes,
                label=short(metrics[number].metric),
            )
    figure.legend(loc="outside upper left", ncols=min(3, len(metrics)))
    return figure
