"""The heat map of mixing weights: each pixel is a weight that was read, and rows can be told."""

from __future__ import annotations

import itertools

import numpy
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mlo.errors import DataError
from mlo.report.style import styled
from mlo.report.svg import inline, save
from problems.nas.pictures import Labels, derived, mixing_figure
from problems.nas.pictures.mixing import columns
from problems.nas.space import CellSpace, Edge, MacroSpace

CELL = CellSpace.darts()
NINE = MacroSpace.chain(
    6, (*CellSpace.darts().parts["normal"][0].operations[1:], "conv_1x1", "conv_7x1_1x7")
)
SPACES = {"cells": CELL, "nine of a layer": NINE, "one edge": MacroSpace.chain(1)}
FEW = CellSpace.darts(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))


def read(space, times, seed=0):
    """Random weights [T, E, O] of every part, each row of them adding up to one."""
    generator = numpy.random.default_rng(seed)
    return {
        part: generator.dirichlet(numpy.ones(space.shape(part)[1]), (times, space.shape(part)[0]))
        for part in space.parts
    }


def draw(space, ticks, mixing, **options):
    labels = Labels.of(space)
    with styled():
        return mixing_figure(ticks, mixing, labels.edges, labels.operations, "run", **options)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_no_text_lies_on_another_and_none_leaves_the_figure(space):
    ticks = [0, *range(9_950, 50_000, 5_000), 49_999]
    figure = draw(space, ticks, read(space, len(ticks)))
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.size
    parts = [figure._suptitle]
    for axes in figure.axes:
        low, high = axes.xaxis.get_view_interval()
        ticks = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        parts += [axes.xaxis.label, axes._left_title, *ticks, *axes.get_yticklabels(), *axes.texts]
    boxes = [part.get_window_extent() for part in parts if part.get_text()]
    rows = sum(edges * operations for edges, operations in map(space.shape, space.parts))
    assert len(boxes) > rows + sum(space.shape(part)[0] for part in space.parts)
    for box in boxes:
        assert box.x0 >= -1
        assert box.x1 <= width + 1
        assert box.y0 >= -1
        assert box.y1 <= height + 1
    for first, second in itertools.combinations(boxes, 2):
        # The box of a text is as high as its font, which no letter of these names is.
        lower = (first.padded(0, -0.15 * first.height), second.padded(0, -0.15 * second.height))
        assert not lower[0].overlaps(lower[1])


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_pixels_are_the_nearest_readings_of_their_row(space):
    ticks = numpy.array([0, 10, 20, 30, 70, 75])
    mixing = read(space, len(ticks))
    figure = draw(space, ticks, mixing)
    for axes, (part, values) in zip(figure.axes, mixing.items(), strict=False):
        (image,) = axes.images
        pixels = image.get_array().filled(numpy.nan)
        left, right, bottom, top = image.get_extent()
        assert (left, right) == (-5, 77.5)
        assert (bottom, top) == (values[0].size, 0)
        middles = left + (numpy.arange(pixels.shape[1]) + 0.5) * (right - left) / pixels.shape[1]
        nearest = abs(middles[:, None] - ticks).argmin(axis=1)
        edges, operations = space.shape(part)
        for row, (edge, k) in enumerate(itertools.product(range(edges), range(operations))):
            numpy.testing.assert_array_equal(pixels[row], values[nearest, edge, k])
        assert image.get_clim() == (0, max(v.max() for v in mixing.values()))


def test_every_reading_is_seen_as_long_as_there_are_fewer_than_pixels():
    for count in (1, 2, 3, 100, 480):
        shown, _ = columns(numpy.arange(count) * 7)
        assert set(shown) == set(range(count))


def test_rows_are_named_from_the_top_and_the_names_stand_in_the_middle_of_their_rows():
    figure = draw(NINE, [0, 1], read(NINE, 2))
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    one = [
        *("max pool 3×3", "avg pool 3×3", "skip", "sep conv 3×3", "sep conv 5×5"),
        *("dil conv 3×3", "dil conv 5×5", "conv 1×1", "conv 7×1, 1×7"),
    ]
    assert names == one * 6
    assert list(axes.get_yticks()) == [row + 0.5 for row in range(54)]
    assert axes.get_ylim() == (54, 0)
    assert {t.get_text(): t.xy[1] for t in axes.texts} == {
        f"{i}→{i + 1}": 9 * i + 4.5 for i in range(6)
    }


def marks(axes):
    (line,) = [line for line in axes.lines if line.get_marker() == "<"]
    return [int(y) for y in line.get_ydata()]


def test_marked_is_the_genotype_that_is_derived_by_hand():
    mixing = read(CELL, 3)
    last = {part: torch.tensor(values[-1]) for part, values in mixing.items()}
    figure = draw(CELL, range(3), mixing, chosen=derived(CELL, last))
    ends = [(source, target) for target in range(2, 6) for source in range(target)]
    for axes, part in zip(figure.axes, CELL.parts, strict=False):
        best = last[part].numpy()[:, 1:]  # without "none"
        expected = []
        for node in range(2, 6):
            rows = [row for row, (_, target) in enumerate(ends) if target == node]
            rows = sorted(rows, key=lambda row: -best[row].max())[:2]
            expected += [8 * row + 1 + int(best[row].argmax()) for row in rows]
        assert sorted(marks(axes)) == sorted(expected)


def test_without_a_choice_the_largest_of_each_edge_but_none_is_marked():
    mixing = read(FEW, 2)
    for values in mixing.values():
        values[-1, :, 0] = 2.0
    figure = draw(FEW, range(2), mixing)
    for axes, values in zip(figure.axes, mixing.values(), strict=False):
        assert marks(axes) == [
            3 * e + 1 + int(row[1:].argmax()) for e, row in enumerate(values[-1])
        ]
    chain = read(NINE, 2)
    expected = [9 * layer + int(row.argmax()) for layer, row in enumerate(chain["layers"][-1])]
    last = {"layers": torch.tensor(chain["layers"][-1])}
    for options in ({}, {"chosen": derived(NINE, last)}):
        assert marks(draw(NINE, range(2), chain, **options).axes[0]) == expected


def test_weights_that_are_nan_are_blank_and_their_edge_is_not_marked():
    mixing = read(NINE, 2)
    mixing["layers"][1, 2] = numpy.nan
    figure = draw(NINE, range(2), mixing)
    assert len(marks(figure.axes[0])) == 5
    FigureCanvasAgg(figure).draw()
    figure = draw(NINE, range(2), {"layers": mixing["layers"] * numpy.nan})
    FigureCanvasAgg(figure).draw()


def test_the_map_can_be_read_in_grey():
    figure = draw(NINE, range(2), read(NINE, 2))
    colors = colormaps[figure.axes[0].images[0].get_cmap().name](numpy.linspace(0, 1, 33))[:, :3]
    linear = numpy.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    power = linear @ [0.2126, 0.7152, 0.0722]
    light = numpy.where(power > 0.008856, 116 * numpy.cbrt(power) - 16, 903.3 * power)  # CIE L*
    steps = -numpy.diff(light)
    assert steps.min() > 0, "darker and darker"
    even = steps[:-3]  # near black the eye tells less than L* says
    assert even.min() > 0.8 * even.mean()
    assert even.max() < 1.25 * even.mean()


def test_a_saved_picture_holds_its_pixels_and_its_words():
    with styled():
        labels = Labels.of(NINE)
        figure = mixing_figure(range(2), read(NINE, 2), labels.edges, labels.operations, "run")
        page = inline(save(figure), "run", "a-", themed=False)
    assert "data:image/png" in page
    assert "pixelated" in page
    assert page.count("dil conv 5×5") == 6


@pytest.mark.parametrize(
    ("ticks", "change", "message"),
    [
        ([0, 1], lambda v: v[:, :-1], r"expected shape \(2, 6, 9\).*found \(2, 5, 9\)"),
        ([0, 1, 2], lambda v: v, r"expected shape \(3, 6, 9\)"),
        ([], lambda v: v[:0], "at least one reading"),
        ([1, 1], lambda v: v, r"ticks that increase, found \[1, 1\]"),
    ],
)
def test_readings_that_do_not_fit_are_refused(ticks, change, message):
    with pytest.raises(DataError, match=message):
        draw(NINE, ticks, {"layers": change(read(NINE, 2)["layers"])})


def test_edges_with_fewer_candidates_share_the_columns_or_are_refused():
    few = MacroSpace({"layers": (Edge(0, 1, ("conv_1x1",)), Edge(1, 2, ("conv_1x1", "conv_3x3")))})
    assert Labels.of(few).operations == {"layers": ("conv_1x1", "conv_3x3")}
    other = MacroSpace(
        {"layers": (Edge(0, 1, ("conv_3x3",)), Edge(1, 2, ("conv_1x1", "conv_3x3")))}
    )
    with pytest.raises(DataError, match="share their columns"):
        Labels.of(other)
