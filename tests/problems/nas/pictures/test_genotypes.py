"""Pictures of genotypes: what is drawn is the genotype, and every word of it can be read."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from xml.etree import ElementTree as ET

import numpy
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from scipy import optimize

from mlo.report.style import PALETTE, VARIABLES, styled
from mlo.report.svg import inline, standalone
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.operations import OPERATIONS
from problems.nas.pictures import genotype_figure
from problems.nas.pictures.cell_places import LABEL, RADIUS, cell_places, in_order
from problems.nas.pictures.words import words
from problems.nas.published import DARTS_V1, DARTS_V2
from problems.nas.space import CellSpace, MacroSpace

BROAD = ("sep_conv_7x7", "conv_7x1_1x7", "max_pool_3x3", "skip_connect")


def drawn_at_random(seed, space):
    return space.random_genotype(torch.Generator().manual_seed(seed))


def deepest():
    """Every node needs the one before it: as many columns as there can be, broad labels."""
    nodes = [
        [{"operation": "conv_7x1_1x7", "input": i}, {"operation": "sep_conv_7x7", "input": i + 1}]
        for i in range(4)
    ]
    cell = {"nodes": nodes, "concat": [5]}
    return Genotype.of(normal=cell, reduce=cell)


CELLS = {
    "first order": DARTS_V1,
    "second order": DARTS_V2,
    "deepest": deepest(),
    **{f"random {seed}": drawn_at_random(seed, CellSpace.darts()) for seed in range(5)},
    "two nodes": drawn_at_random(0, CellSpace.darts(nodes=2)),
    "seven nodes": drawn_at_random(0, CellSpace.darts(nodes=7, operations=BROAD)),
}
CHAINS = {
    "chain": drawn_at_random(0, MacroSpace.chain(6)),
    "one layer": MacroGenotype(layers=("conv_7x1_1x7",)),
    "long chain": drawn_at_random(0, MacroSpace.chain(23, BROAD)),
}


@functools.cache
def draw(genotype):
    with styled():
        figure = genotype_figure(genotype, "digits, LFM, seed 0: what was found")
        FigureCanvasAgg(figure).draw()
    return figure


def texts(figure):
    return [text for axes in figure.axes for text in axes.texts]


def patches(figure, kind):
    return [patch for patch in figure.axes[0].patches if type(patch) is kind]


@pytest.mark.parametrize("genotype", [*CELLS.values(), *CHAINS.values()], ids=[*CELLS, *CHAINS])
def test_no_word_lies_on_another_and_each_lies_within_its_box(genotype):
    figure = draw(genotype)
    boxes = [text.get_window_extent() for text in texts(figure)]
    frames = [p.get_window_extent() for p in patches(figure, FancyBboxPatch) if not p.get_fill()]
    frames += [circle.get_window_extent() for circle in patches(figure, Circle)]
    outer = figure.bbox
    for box in (*boxes, *frames):
        assert outer.x0 <= box.x0
        assert box.x1 <= outer.x1
        assert outer.y0 <= box.y0
        assert box.y1 <= outer.y1
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    for first, second in itertools.combinations(frames, 2):
        assert not first.padded(2).overlaps(second), "frames stand apart"
    headings = 3 if isinstance(genotype, Genotype) else 1
    within = [
        any(f.x0 < b.x0 and b.x1 < f.x1 and f.y0 < b.y0 and b.y1 < f.y1 for f in frames)
        for b in boxes
    ]
    assert within.count(False) == headings
    assert within.count(True) == len(frames)


@pytest.mark.parametrize("genotype", CELLS.values(), ids=CELLS)
def test_no_line_runs_through_a_label_or_a_state_that_it_does_not_end_at(genotype):
    figure = draw(genotype)
    frames = [p.get_window_extent() for p in patches(figure, FancyBboxPatch) if not p.get_fill()]
    frames += [circle.get_window_extent() for circle in patches(figure, Circle)]
    lines = patches(figure, PathPatch)
    assert len(lines) == sum(
        2 * len(cell.nodes) + len(cell.concat) for cell in (genotype.normal, genotype.reduce)
    )
    for line in lines:
        path = line.get_transform().transform_path(line.get_path())
        points = path.interpolated(1).to_polygons(closed_only=False)[0]
        steps = numpy.linspace(points[:-1], points[1:], 20).reshape(-1, 2)
        for frame in frames:
            inner = frame.padded(-0.5)
            hit = (
                (steps > [inner.x0, inner.y0]).all(axis=1)
                & (steps < [inner.x1, inner.y1]).all(axis=1)
            ).any()
            assert not hit


@pytest.mark.parametrize("genotype", CELLS.values(), ids=CELLS)
def test_lines_lead_from_the_inputs_of_a_choice_through_its_label_to_its_node(genotype):
    for cell in (genotype.normal, genotype.reduce):
        places = cell_places(cell, lambda text: 6.0 * len(text))
        found = Counter()
        at = {middle: state for state, middle in places.states.items()}
        for line in places.lines:
            x, y = line.points[0]
            (source,) = [
                s for s, (u, v) in places.states.items() if abs(v - y) < 1e-9 and 0 < x - u < 18
            ]
            found[source, line.operation, at[line.node]] += 1
            if line.operation is not None:
                end, level = line.points[-1]
                assert line.width == 6.0 * len(words(line.operation).name)
                assert end + line.width < line.node[0] - RADIUS
                assert LABEL / 2 < abs(level - line.node[1]) < 2 * RADIUS
        expected = Counter(
            (str(choice.input), choice.operation, str(node))
            for node, pair in enumerate(cell.nodes, start=2)
            for choice in pair
        )
        expected.update((str(state), None, "output") for state in cell.concat)
        assert found == expected
        columns = {state: x for state, (x, _) in places.states.items()}
        assert all(columns[source] < columns[target] for source, _, target in found)


@pytest.mark.parametrize("genotype", CELLS.values(), ids=CELLS)
def test_lines_pass_labels_at_a_distance_and_the_two_of_a_node_do_not_cross(genotype):
    for cell in (genotype.normal, genotype.reduce):
        lines = cell_places(cell, lambda text: 6.0 * len(text)).lines
        labels = [line for line in lines if line.operation is not None]
        for line, label in itertools.permutations(lines, 2):
            left, middle = label.points[-1]
            for (x, y), (u, _) in zip(line.points[1::2], line.points[2::2], strict=False):
                if label.operation is not None and x < left + label.width and left < u:
                    assert abs(y - middle) >= LABEL / 2 + 4
        for first, second in itertools.combinations(labels, 2):
            if first.node == second.node:
                (_, from_first), (_, from_second) = first.points[-3], second.points[-3]
                (_, to_first), (_, to_second) = first.points[-1], second.points[-1]
                assert (from_first < from_second) == (to_first < to_second)


def test_the_words_and_numbers_are_those_of_both_cells():
    figure = draw(DARTS_V2)
    found = Counter(text.get_text() for text in texts(figure))
    choices = [c for cell in (DARTS_V2.normal, DARTS_V2.reduce) for p in cell.nodes for c in p]
    expected = Counter(words(choice.operation).name for choice in choices)
    expected.update(2 * ["0", "1", "2", "3", "cₖ₋₂", "cₖ₋₁", "cₖ"])
    expected.update(["normal cell", "reduction cell", "digits, LFM, seed 0: what was found"])
    assert found == expected
    names = [words(choice.operation).name for choice in choices]
    heading = next(t for t in texts(figure) if t.get_text() == "reduction cell").get_position()[1]
    lower = Counter(t.get_text() for t in texts(figure) if t.get_position()[1] > heading)
    assert {name: lower[name] for name in set(names[8:])} == Counter(names[8:])


def test_a_chain_is_drawn_in_its_order_with_an_arrow_to_each_next_box():
    genotype = CHAINS["long chain"]
    figure = draw(genotype)
    _, *boxes = texts(figure)
    places = [(round(text.get_position()[1], 3), text.get_position()[0]) for text in boxes]
    assert places == sorted(places)
    names = [words(name).name for name in genotype.layers]
    assert [text.get_text() for text in boxes] == ["input", *names, "output"]
    assert len({height for height, _ in places}) > 2, "it is broken into rows"
    assert len(patches(figure, FancyArrowPatch)) == len(boxes) - 1


@pytest.mark.parametrize("genotype", [DARTS_V1, CHAINS["chain"]])
def test_it_is_text_in_the_colours_of_the_page(genotype):
    with styled():
        document = standalone(genotype_figure(genotype, "found"), "found")
    root = ET.fromstring(document)
    written = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert "skip" in written
    assert "found" in written
    page = inline(document, "found", "a-")
    assert "var(--c1)" in page
    for patch in draw(genotype).axes[0].patches:
        for color in (patch.get_edgecolor(), patch.get_facecolor()):
            assert color[3] == 0 or to_hex(color) in VARIABLES


def test_each_operation_has_a_name_of_its_own_and_each_kind_a_colour():
    assert len({words(name).name for name in OPERATIONS}) == len(OPERATIONS)
    kinds = {"skip": 1, "max": 2, "avg": 2, "sep": 0, "dil": 3, "conv": 4}
    for name in OPERATIONS:
        if name != "none":
            assert words(name).color == list(PALETTE)[kinds[name.split("_")[0]]]
    unknown = words("involution_7")
    assert (unknown.name, unknown.brief) == ("involution 7", "involution_7")


@pytest.mark.parametrize("seed", range(5))
def test_places_in_order_are_the_nearest_that_do_not_touch(seed):
    generator = numpy.random.default_rng(seed)
    wanted, sizes = generator.normal(size=6) * 20, generator.uniform(5, 15, 6)
    gaps = (sizes[1:] + sizes[:-1]) / 2
    found = numpy.array(in_order(wanted.tolist(), sizes.tolist()))
    apart = {"type": "ineq", "fun": lambda y: numpy.diff(y) - gaps}
    best = optimize.minimize(
        lambda y: ((y - wanted) ** 2).sum(),
        numpy.cumsum(sizes),
        constraints=[apart],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    numpy.testing.assert_allclose(found, best.x, atol=1e-4)
