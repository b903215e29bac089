"""Pictures of a run: confusion matrices, accuracies of the classes, and weights.

confusion        what the networks take each class for
class-accuracy   accuracy of each class, beside that of the first network
weights          weights of right and wrong labels, or of large and small classes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy

from mlo.report.axes import log_axis, plain
from mlo.report.style import GRID, INK, MUTED, PALETTE, PAPER, Look, styled
from problems.reweighting.panels import class_axis, panels
from problems.reweighting.readings import (
    Array,
    Runs,
    class_accuracies,
    class_counts,
    confusions,
    imbalanced,
    over_seeds,
    right_and_wrong,
)
from problems.reweighting.weight_pictures import weights_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["class_figure", "confusion_figure", "pictures", "right_and_wrong", "weights_figure"]

_NUMBERED = 12
"""The most classes whose shares are written into the matrix."""

_SHADES = (0, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 1)
"""Shares that the scale of the colours names."""

_MARKED = 20
"""The most classes with a large marker each."""


def pictures(kept: Runs, title: str) -> Iterator[tuple[str, Figure]]:
    """Draw all there is to draw, as (name, figure).

    Args:
        kept: stage -> seed -> what it handed on; a picture that nothing is there for is left out.
        title: begins the title of every picture.

    Raises:
        DataError: matplotlib is not installed.
    """
    draws = {
        "confusion": confusion_figure,
        "class-accuracy": class_figure,
        "weights": weights_figure,
    }
    for name, draw in draws.items():
        with styled():
            figure = draw(kept, title)
        if figure is not None:
            yield name, figure


def confusion_figure(kept: Runs, title: str) -> Figure | None:
    """A matrix a network: shares of each right class, means over the seeds; within `styled`."""
    found = {name: over_seeds(shares) for name, shares in confusions(kept).items()}
    if not found:
        return None
    numbered = len(next(iter(found.values()))) <= _NUMBERED
    words = f"{title}: share of each right class" + (" in %, empty below 0.5" if numbered else "")
    figure, drawn = panels(list(found), *((2, 3.4) if numbered else (3, 2.2)), words)
    for axes, shares in zip(drawn, found.values(), strict=True):
        image = _draw_matrix(axes, shares)
        if numbered:
            _write_shares(axes, shares)
    if not numbered:
        bar = figure.colorbar(image, ax=drawn, aspect=30, ticks=_SHADES)
        bar.ax.set_yticklabels([plain(share) for share in _SHADES])
    figure.supxlabel("predicted class", color=MUTED, fontsize=10)
    figure.supylabel("right class", color=MUTED, fontsize=10)
    return figure


def class_figure(kept: Runs, title: str) -> Figure | None:
    """A panel a network: accuracy of each class, the mean and the range over the seeds.

    The first network is repeated in grey. Where the classes differ in size, they are ordered by
    it, and the first panel shows the sizes. Call it within `styled`.
    """
    found = class_accuracies(kept)
    if not found:
        return None
    first, *others = found
    counts = class_counts(kept)
    sizes = counts if counts is not None and imbalanced(counts) else None
    classes = numpy.arange(found[first].shape[1])
    order = classes if sizes is None else numpy.argsort(-sizes, kind="stable")
    words = f"{title}: accuracy of each class in %"
    if any(len(values) > 1 for values in found.values()):
        words += "; band: lowest to highest seed"
    if others:
        words += f"; grey: {first}"
    names = [*([] if sizes is None else ["training examples"]), *found]
    figure, drawn = panels(names, 2, 1.75, words)
    if sizes is not None:
        _draw_sizes(drawn.pop(0), sizes[order])
    for axes, (name, values) in zip(drawn, found.items(), strict=True):
        if axes is not drawn[0]:
            axes.sharey(drawn[0])
        if name != first:
            axes.plot(100 * over_seeds(found[first])[order], color=MUTED, linewidth=1, alpha=0.7)
        _draw_accuracies(axes, 100 * values[:, order])
    for axes in figure.axes:
        class_axis(axes.xaxis, order.tolist())
    label = "class" if sizes is None else "class, most training examples first"
    figure.supxlabel(label, color=MUTED, fontsize=10)
    return figure


def _draw_matrix(axes: Axes, shares: Array) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("shades", [PAPER, next(iter(PALETTE))])
    shades = colors.with_extremes(bad=GRID)
    axes.grid(visible=False)
    most = 12 if len(shares) <= _NUMBERED else 6
    class_axis(axes.xaxis, range(len(shares)), most)
    class_axis(axes.yaxis, range(len(shares)), most)
    # Rare confusions, which there are many of, would be white on a linear scale.
    return axes.imshow(shares, cmap=shades, norm=PowerNorm(0.5, 0, 1), interpolation="none")


def _write_shares(axes: Axes, shares: Array) -> None:
    for (row, column), share in numpy.ndenumerate(shares):
        if share >= 0.005:
            color = PAPER if share > 0.3 else INK
            where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
            axes.text(column, row, f"{100 * share:.0f}", color=color, **where)


def _draw_sizes(axes: Axes, sizes: Array) -> None:
    size = 5 if len(sizes) <= _MARKED else 2.5
    axes.plot(sizes, ".", color=MUTED, markersize=size)
    if sizes.min() > 0 and sizes.max() >= 10 * sizes.min():
        log_axis(axes)


def _draw_accuracies(axes: Axes, values: Array) -> None:
    color = Look(0).color
    places = range(values.shape[1])
    if len(values) > 1:
        low, high = numpy.fmin.reduce(values), numpy.fmax.reduce(values)
        axes.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
    size = 5 if len(places) <= _MARKED else 2.5
    axes.plot(places, over_seeds(values), ".-", color=color, linewidth=1.4, markersize=size)
