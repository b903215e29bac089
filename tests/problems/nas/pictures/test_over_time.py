"""Curves of a search: skip connections, and how far products are from the exact ones."""

from __future__ import annotations

import itertools

import numpy
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mlo.report.style import styled
from problems.nas.pictures import difference_figure, skips_figure

SKIPS = {
    "darts": {0: ([0, 10, 20], [1, 3, 8]), 1: ([0, 10], [2, 2])},
    "lfm": {0: ([0, 10, 20], [0, 1, 1]), 1: ([0, 10, 20], [1, 1, 4])},
}


def draw(function, *args):
    with styled():
        figure = function(*args)
        FigureCanvasAgg(figure).draw()
    return figure


def lines(axes):
    """Label -> x and y of a line, thick ones only."""
    return {
        line.get_label(): tuple(numpy.asarray(v, float).tolist() for v in line.get_data())
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_means_are_over_the_seeds_that_were_read_at_a_tick_and_seeds_are_thin():
    (axes,) = draw(skips_figure, SKIPS, 8, "MNIST-1D").axes
    assert lines(axes) == {
        "darts": ([0, 10, 20], [1.5, 2.5, 8]),
        "lfm": ([0, 10, 20], [0.5, 1, 2.5]),
    }
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in thin]
    assert drawn == [*SKIPS["darts"].values(), *SKIPS["lfm"].values()]
    colors = {line.get_label(): line.get_color() for line in axes.lines}
    assert [line.get_color() for line in thin] == 2 * [colors["darts"]] + 2 * [colors["lfm"]]


def test_all_that_is_possible_is_a_line_that_can_be_seen():
    for most in (2, 8, 20):
        (axes,) = draw(skips_figure, {"lfm": {0: ([0, 5], [0, 1])}}, most, "run").axes
        (line,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert list(line.get_ydata()) == [most, most]
        assert axes.get_ylim()[0] < 0 < most < axes.get_ylim()[1]
        assert [text.get_text() for text in axes.texts] == [f"all {most}"]
        assert all(tick == int(tick) for tick in axes.get_yticks())


def test_both_panels_hold_what_they_are_given_and_zeros_and_nan_are_gaps():
    nan = numpy.nan
    series = {
        "radius 0.01": ([0, 10, 20], [0.9, nan, 1.0], [1e-1, nan, 1e-3]),
        "radius 1e-06": ([0, 10, 20], [-0.5, 0.0, 1.0], [2.0, 0.0, numpy.inf]),
    }
    upper, lower = draw(difference_figure, series, "CIFAR-10").axes
    assert upper.get_ylabel() == "cosine"
    assert lower.get_ylabel() == "relative error"
    assert (upper.get_yscale(), lower.get_yscale()) == ("linear", "log")
    for name, (ticks, cosine, error) in series.items():
        for axes, values in ((upper, cosine), (lower, error)):
            x, y = lines(axes)[name]
            gap = [axes is lower and not 0 < v < numpy.inf for v in values]
            numpy.testing.assert_equal(x, ticks)
            numpy.testing.assert_equal(y, numpy.where(gap, nan, values))
    colors = [[line.get_color() for line in axes.lines[-2:]] for axes in (upper, lower)]
    assert colors[0] == colors[1]
    assert len(set(colors[0])) == 2


@pytest.mark.parametrize("values", [[], [0.0], [numpy.nan], [0.3]])
def test_little_or_nothing_can_be_drawn(values):
    draw(difference_figure, {"exact": (range(len(values)), values, values)}, "run")
    draw(skips_figure, {"lfm": {0: (range(len(values)), values)} if values else {}}, 8, "run")


def test_no_text_lies_on_another_and_none_leaves_the_figure():
    names = [f"radius {10.0**-k:g} of the reference" for k in range(7)]
    series = {name: ([0, 90_000], [0.1, 1], [1e-8, 1e2]) for name in names}
    skips = {name: {0: ([0, 90_000], [0, 8])} for name in names}
    for figure in (
        draw(difference_figure, series, "CIFAR-10: difference and exact product"),
        draw(skips_figure, skips, 8, "CIFAR-10: skip connections"),
    ):
        width, height = figure.bbox.size
        parts = [figure._suptitle, *figure.legends[0].get_texts()]
        for axes in figure.axes:
            parts += [axes.xaxis.label, axes.yaxis.label, *axes.texts]
            for number, axis in enumerate((axes.xaxis, axes.yaxis)):
                low, high = axis.get_view_interval()
                ticks = axis.get_ticklabels()
                parts += [t for t in ticks if low <= t.get_position()[number] <= high]
        boxes = [part.get_window_extent() for part in parts]
        boxes = [box for box in boxes if box.width > 0]
        assert len(boxes) > 10
        for box in boxes:
            assert box.x0 >= -1
            assert box.x1 <= width + 1
            assert box.y0 >= -1
            assert box.y1 <= height + 1
        for first, second in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1))
