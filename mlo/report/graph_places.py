"""Where the boxes and arrows of a dependency graph stand, in points."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from mlo.report.chart import short
from mlo.report.layers import Layers, Node

LINE, _PAD, _GAP, _BETWEEN, _PASS = 15.0, 9.0, 26.0, 46.0, 14.0
"""Points: a line of text, inside boxes, between boxes, between rows, width of a passing edge."""

_LETTER = 6.3
"""Points that a letter of a box takes, generously."""

MARGIN, LEGEND, _LABELS = 12.0, 40.0, 56.0
"""Points: around all, below all, and left of all for the levels."""

_NARROWEST = 318.0
"""Points; a narrower drawing would be blown up on a page."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Centre, then width and height."""


def texts(problem: Mapping[str, Any]) -> list[str]:
    """The lines of the box of a problem."""
    kind = problem["kind"] + (f" by {problem['method']}" if problem["method"] else "")
    streams = [f"streams: {', '.join(problem['streams'])}"] if problem["streams"] else []
    return [short(line, 34) for line in (problem["name"], kind, *streams)]


def places(found: Layers, problems: Mapping[str, Any]) -> tuple[dict[Node, Box], float, float]:
    """A box for every node, and the size of the whole."""
    sizes: dict[Node, tuple[float, float]] = {}
    for node in itertools.chain(*found.rows):
        if isinstance(node, str):
            lines = texts(problems[node])
            letters = max(map(len, lines))
            sizes[node] = (_LETTER * letters + 2 * _PAD, LINE * len(lines) + 2 * _PAD)
        else:
            sizes[node] = (_PASS, 0.0)
    widths = [sum(sizes[n][0] for n in row) + _GAP * (len(row) - 1) for row in found.rows]
    inner = max(*widths, _NARROWEST - _LABELS - 2 * MARGIN)
    boxes: dict[Node, Box] = {}
    bottom = MARGIN + LEGEND
    for row, row_width in zip(found.rows, widths, strict=True):
        tallest = max(sizes[node][1] for node in row)
        left = MARGIN + _LABELS + (inner - row_width) / 2
        for node in row:
            wide, high = sizes[node]
            boxes[node] = (left + wide / 2, bottom + tallest / 2, wide, high or tallest)
            left += wide + _GAP
        bottom += tallest + _BETWEEN
    return boxes, inner + _LABELS + 2 * MARGIN, bottom - _BETWEEN + MARGIN


def routes(found: Layers, boxes: Mapping[Node, Box]) -> list[list[Point]]:
    """Points that each edge goes through; edges at one side of a box stand apart."""
    sides: dict[tuple[Node, int], list[tuple[float, int, int]]] = {}
    for number, way in enumerate(found.ways):
        for a, b, end in ((way[0], way[1], 0), (way[-1], way[-2], 1)):
            sides.setdefault((a, _side(boxes[a], boxes[b])), []).append((boxes[b][0], number, end))
    ends: dict[tuple[int, int], Point] = {}
    for (node, side), group in sides.items():
        x, y, wide, high = boxes[node]
        for place, (_, number, end) in enumerate(sorted(group)):
            along = (place + 1) / (len(group) + 1) - 0.5
            beside = abs(side) == 2
            port = (
                (x + side * wide / 4, y + along * high)
                if beside
                else (x + along * wide * 0.8, y + side * high / 2)
            )
            ends[number, end] = port
    found_routes = []
    for number, way in enumerate(found.ways):
        inner = [
            point
            for a, node, _ in zip(way, way[1:], way[2:], strict=False)
            for point in _passing(boxes[a], boxes[node])
        ]
        found_routes.append([ends[number, 0], *inner, ends[number, 1]])
    return found_routes


def _passing(before: Box, box: Box) -> list[Point]:
    """Enter and leave a row vertically, so that no box beside is touched."""
    x, y, _, high = box
    points = [(x, y - high / 2), (x, y + high / 2)]
    return points if before[1] < y else points[::-1]


def _side(a: Box, b: Box) -> int:
    """1 above, -1 below; 2 right and -2 left where both are in one row."""
    if abs(a[1] - b[1]) < 1:
        return 2 if b[0] > a[0] else -2
    return 1 if b[1] > a[1] else -1
