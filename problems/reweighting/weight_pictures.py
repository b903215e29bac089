"""The picture of learned weights: of right and wrong labels, or of large and small classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from mlo.metrics import mean
from mlo.report.axes import plain
from mlo.report.style import MUTED, Look
from mlo.report.weights import BINS
from problems.reweighting.panels import class_axis, panels
from problems.reweighting.readings import (
    Array,
    Kept,
    Runs,
    imbalanced,
    over_seeds,
    pooled,
    right_and_wrong,
    weighing,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TAIL = 3.0
"""A histogram ends at the 99th percentile where the largest weight is so many times as far up."""


def weights_figure(kept: Runs, title: str) -> Figure | None:
    """A panel a program that weighs examples; call it within `styled`.

    Where labels are wrong: histograms of the weights of right and of wrong ones, all seeds
    together, each adding up to one. Elsewhere: mean weight of each class against its size, or
    against its number where all have about the same size.
    """
    found = dict(weighing(kept))
    if not found:
        return None
    noisy = any(pooled(seeds, "corrupted").any() for seeds in found.values())
    areas = right_and_wrong(kept)
    names = [_panel_name(stage, seeds, areas.get(stage, {})) for stage, seeds in found.items()]
    words = (
        f"{title}: weights of the training examples\n"
        "AUC: how often a wrong label has less weight than a right one"
        if noisy
        else f"{title}: mean weight of each class" + _range(found)
    )
    figure, drawn = panels(names, 2, 2.1, words)
    for axes, seeds in zip(drawn, found.values(), strict=True):
        if noisy:
            _draw_histograms(axes, seeds)
        else:
            _draw_classes(axes, seeds)
    if noisy:
        figure.supylabel("share of the examples", color=MUTED, fontsize=10)
        handles = drawn[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower left", ncols=2)
    return figure


def class_means(seeds: Sequence[Kept]) -> tuple[Array, Array]:
    """Size and mean weight of each class, [seeds, K] both; NaN weight for a class of size 0."""
    classes = 1 + max(int(pooled([one], "labels").max()) for one in seeds)
    sizes, means = numpy.empty((2, len(seeds), classes))
    for row, one in enumerate(seeds):
        labels = pooled([one], "labels").astype(int)
        sizes[row] = numpy.bincount(labels, minlength=classes)
        totals = numpy.bincount(labels, pooled([one], "weights"), minlength=classes)
        means[row] = numpy.where(sizes[row] > 0, totals / numpy.maximum(sizes[row], 1), numpy.nan)
    return sizes, means


def _panel_name(stage: str, seeds: Sequence[Kept], areas: Mapping[int, float]) -> str:
    broken = int((~numpy.isfinite(pooled(seeds, "weights"))).sum())
    words = [stage]
    if areas and not broken:
        words.append(f"AUC {mean(areas.values()):.3f}")
    if broken:
        words.append(f"{broken} not finite")
    return ", ".join(words)


def _draw_histograms(axes: Axes, seeds: Sequence[Kept]) -> None:
    weights, corrupted = pooled(seeds, "weights"), pooled(seeds, "corrupted") > 0
    finite = numpy.isfinite(weights)
    weights, corrupted = weights[finite], corrupted[finite]
    low, high = _limits(weights)
    bars = numpy.linspace(low, high, BINS + 1)
    cut = len(weights) > 0 and weights.max() > high
    for number, (label, chosen) in enumerate({"clean": ~corrupted, "corrupted": corrupted}.items()):
        look = Look(number)
        counts, _ = numpy.histogram(numpy.minimum(weights[chosen], high), bars)
        shares = counts / max(1, chosen.sum())
        axes.stairs(shares, bars, fill=True, color=look.color, alpha=0.2)
        line = {"color": look.color, "linewidth": 1.6, "linestyle": look.dashes}
        axes.stairs(shares, bars, label=f"{label} labels", **line)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("weight (last bar: all above)" if cut else "weight")


def _limits(weights: Array) -> tuple[float, float]:
    """Ends of the bars; a few weights far above all others are beyond them."""
    if not len(weights):
        return 0.0, 1.0
    low, most, high = (float(numpy.quantile(weights, q)) for q in (0, 0.99, 1))
    if low < most and high - low > _TAIL * (most - low):
        high = most
    return (low - 0.5, high + 0.5) if math.isclose(low, high) else (low, high)


def _draw_classes(axes: Axes, seeds: Sequence[Kept]) -> None:
    sizes, means = class_means(seeds)
    count = over_seeds(sizes)
    uneven = imbalanced(count[count > 0])
    places = count if uneven else numpy.arange(len(count), dtype=float)
    there = numpy.isfinite(means).any(axis=0)
    low, high = numpy.fmin.reduce(means)[there], numpy.fmax.reduce(means)[there]
    color = Look(0).color
    axes.vlines(places[there], low, high, color=color, alpha=0.4, linewidth=1.4)
    axes.plot(places[there], over_seeds(means)[there], "o", color=color, markersize=4)
    axes.set_xlabel("training examples of the class" if uneven else "class")
    if not uneven:
        class_axis(axes.xaxis, range(len(count)))
    elif count.max() >= 10 * count[there].min():
        _log_sizes(axes)


def _log_sizes(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def _range(found: Mapping[str, Sequence[Any]]) -> str:
    several = any(len(seeds) > 1 for seeds in found.values())
    return "; lines: lowest to highest seed" if several else ""
