"""The drawing of the dependency graph: what is on it, and that nothing lies on anything else."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest
import torch

import mlo
from mlo.report import graph_svg
from mlo.report.graph_places import places, routes
from mlo.report.layers import crossings, layers
from mlo.report.style import MUTED, PALETTE

from .parsed import SVG

BLUE = next(iter(PALETTE))


def graph(levels, edges):
    problems = [
        {"name": n, "level": lv, "kind": "staged", "method": "Neumann" if lv else None,
         "streams": ["train", "valid"] if lv == 1 else []}
        for n, lv in levels.items()
    ]  # fmt: skip
    return {
        "problems": problems,
        "edges": [{"read": a, "by": b, "response": r} for a, b, r in edges],
    }


CHAIN = graph(
    {f"p{i}": i for i in range(4)},
    [*((f"p{i}", f"p{i + 1}", True) for i in range(3)), ("p3", "p0", False), ("p0", "p2", True)],
)
DIAMOND = graph(
    {"base": 0, "left": 1, "right": 1, "top": 2},
    [("base", "left", True), ("base", "right", True), ("left", "top", True),
     ("right", "top", True), ("top", "base", False), ("left", "right", False)],
)  # fmt: skip
EIGHT = graph(
    {f"problem {i}": i // 3 for i in range(8)},
    [(f"problem {i}", f"problem {j}", (i + j) % 2 == 0)
     for i, j in itertools.permutations(range(8), 2) if i // 3 != j // 3 and abs(i - j) < 5],
)  # fmt: skip
GAP = graph({"a": 0, "b": 7}, [("a", "b", True), ("b", "a", False)])
ONE = graph({"alone": 0}, [])
GRAPHS = {"chain": CHAIN, "diamond": DIAMOND, "eight": EIGHT, "gap": GAP, "one": ONE}


@pytest.fixture(params=GRAPHS)
def drawing(request):
    return GRAPHS[request.param]


def arrows(root):
    """How many lines are thick and how many thin."""
    styles = [path.get("style", "") for path in root.iter(f"{SVG}path")]
    lines = [style for style in styles if "fill: none" in style]
    thick = sum(f"stroke: {BLUE}" in line and "stroke-width: 2.8" in line for line in lines)
    return thick, sum(f"stroke: {MUTED}" in line for line in lines)


def test_it_is_xml_with_every_problem_kind_method_stream_and_edge(drawing):
    root = ET.fromstring(graph_svg(drawing))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    for problem in drawing["problems"]:
        assert texts.count(problem["name"]) == 1
        kind = "staged" + (" by Neumann" if problem["method"] else "")
        assert kind in texts
        assert ("streams: train, valid" in texts) >= bool(problem["streams"])
        assert f"level {problem['level']}" in texts
    responses = sum(edge["response"] for edge in drawing["edges"])
    # One of each in the legend.
    assert arrows(root) == (1 + responses, 1 + len(drawing["edges"]) - responses)


def test_boxes_lie_within_the_drawing_apart_and_higher_levels_above(drawing):
    problems = {problem["name"]: problem for problem in drawing["problems"]}
    boxes, width, height = places(layers(drawing), problems)
    for a, b in itertools.combinations(boxes, 2):
        (x, y, w, h), (u, v, p, q) = boxes[a], boxes[b]
        assert abs(x - u) >= (w + p) / 2 or abs(y - v) >= (h + q) / 2, (a, b)
    for name, problem in problems.items():
        x, y, w, h = boxes[name]
        assert w / 2 < x < width - w / 2
        assert h / 2 < y < height - h / 2
        for other in problems.values():
            if other["level"] < problem["level"]:
                assert boxes[other["name"]][1] < y


def test_edges_run_between_their_boxes_and_not_through_others(drawing):
    problems = {problem["name"]: problem for problem in drawing["problems"]}
    found = layers(drawing)
    boxes, _, _ = places(found, problems)
    for edge, points in zip(found.edges, routes(found, boxes), strict=True):
        for name, (px, py) in ((edge.read, points[0]), (edge.by, points[-1])):
            x, y, w, h = boxes[name]
            assert abs(px - x) <= w / 2 + 1e-9
            assert abs(py - y) <= h / 2 + 1e-9
        for px, py in points[1:-1]:
            for name in problems:
                x, y, w, h = boxes[name]
                assert abs(px - x) > w / 2 or abs(py - y) > h / 2, (edge, name)
    ends = [points[i] for points in routes(found, boxes) for i in (0, -1)]
    assert len(set(ends)) == len(ends), "two arrows end at one point"


def test_edges_that_need_not_cross_do_not():
    crossed = graph({"a": 0, "b": 0, "c": 1, "d": 1}, [("a", "d", True), ("b", "c", True)])
    assert crossings(layers(crossed).rows, layers(crossed).ways) == 0
    # Both parts of a complete graph of two and two cross once, whatever is done.
    full = graph({"a": 0, "b": 0, "c": 1, "d": 1}, [(x, y, True) for x in "ab" for y in "cd"])
    assert crossings(layers(full).rows, layers(full).ways) == 1


def test_names_with_markup_are_text():
    name = "<a&b>$x$"
    root = ET.fromstring(graph_svg(graph({name: 0}, [])))
    assert name in ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert name in root.find(f"{SVG}title").text


def test_the_graph_of_an_engine_can_be_drawn():
    def low(a, b):
        return (a["x"] - b["y"]).square().sum()

    def high(b, a):
        return a["x"].square().sum() + b["y"].square().sum()

    def sgd(params):
        return torch.optim.SGD(params, 0.1)

    engine = mlo.Engine(
        [
            mlo.Problem("a", params={"x": torch.ones(2)}, loss=low, optimizer=sgd,
                        hypergradient=mlo.OneStep()),
            mlo.Problem("b", params={"y": torch.ones(2)}, loss=high, optimizer=sgd),
        ]
    )  # fmt: skip
    root = ET.fromstring(graph_svg(engine.graph.plain()))
    assert arrows(root) == (1 + 1, 1 + 1)
