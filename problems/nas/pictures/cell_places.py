"""Where the parts of a drawn cell stand, in points: columns from left to right, downwards from 0.

A state stands in the column of the longest way to it. An operation is a label just left of the
node that it leads to, so that labels lie in rows of their own, which no line crosses: a line that
passes a column has a place of its own there, between its states.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

from mlo.report.layers import Layers, Node, layers
from problems.nas.genotype import Cell
from problems.nas.pictures.words import words

LABEL, PITCH, RADIUS = 17.0, 23.0, 10.5
"""Height of a label, from one label of a node to its other one, and radius of a node."""

_BOX, _PASS, _APART = 26.0, 10.0, 8.0
"""Heights of an input or output and of a passing line, and between two places of a column."""

_BEND, _ARROW, ENDS = 34.0, 20.0, 34.0
"""Widths: where lines bend between columns, from a label to its node, an input or output."""

_SWEEPS = 24

OUTPUT = "output"

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Line:
    """A line from a state to a label of a node, or to the output where there is no operation.

    Attributes:
        points: what it goes through: level from an odd one to the next, bent elsewhere.
        operation: the name of the operation; None for a part of the output.
        width: of the label, which ends where the line does.
        node: the middle of the node that it leads to.
    """

    points: tuple[Point, ...]
    operation: str | None
    width: float
    node: Point


@dataclasses.dataclass(frozen=True)
class Places:
    """A cell with places.

    Attributes:
        states: state, or "output" -> its middle.
        lines: all of them.
        width: of the whole.
        height: of the whole.
    """

    states: Mapping[str, Point]
    lines: tuple[Line, ...]
    width: float
    height: float


def cell_places(cell: Cell, wide: Callable[[str], float]) -> Places:
    """Arrange a cell.

    Args:
        cell: the cell.
        wide: points that a label takes, given its text.
    """
    operations = [choice.operation for pair in cell.nodes for choice in pair]
    widths = [wide(words(operation).name) for operation in operations]
    found = layers(_as_drawing(cell))
    heights, ports = _heights(cell, found)
    labelled = len(operations)
    spans, width = _columns(found, widths)
    column = {node: number for number, row in enumerate(found.rows) for node in row}
    states = {node: (_middle(spans, column[node]), heights[node]) for node in _states(found)}
    lines = []
    for number, way in enumerate(found.ways):
        name = operations[number] if number < labelled else None
        size = widths[number] if number < labelled else 0.0
        stops = [(spans[column[node]], heights[node]) for node in way]
        points = _points(stops, ports[number], size)
        lines.append(Line(points, name, size, states[str(way[-1])]))
    low = max(heights[node] + _size(node) / 2 for node in heights)
    return Places(states, tuple(lines), width, low)


def _as_drawing(cell: Cell) -> dict[str, list[dict[str, object]]]:
    """The graph as `mlo.report.layers` reads it: the edges of operations, then of the output."""
    level = {0: 0, 1: 0}
    for node, pair in enumerate(cell.nodes, start=2):
        level[node] = 1 + max(level[choice.input] for choice in pair)
    ends = [
        (str(choice.input), str(node))
        for node, pair in enumerate(cell.nodes, start=2)
        for choice in pair
    ] + [(str(state), OUTPUT) for state in cell.concat]
    nodes = {str(state): number for state, number in level.items()}
    nodes[OUTPUT] = 1 + max(level.values())
    return {
        "problems": [{"name": name, "level": number} for name, number in nodes.items()],
        "edges": [{"read": read, "by": by, "response": False} for read, by in ends],
    }


def _states(found: Layers) -> list[str]:
    return [node for node in itertools.chain(*found.rows) if isinstance(node, str)]


def _size(node: Node) -> float:
    """The height of a place."""
    if not isinstance(node, str):
        return _PASS
    return _BOX if node in ("0", "1", OUTPUT) else PITCH + LABEL


def _heights(cell: Cell, found: Layers) -> tuple[dict[Node, float], list[float]]:
    """Heights of all places, and how far below the middle of its end each line ends.

    Each sweep moves every column to where its lines are shortest, as far as the order allows.
    """
    rows = [list(row) for row in found.rows]
    heights = {node: float(y) for row in rows for node, y in zip(row, _stacked(row), strict=True)}
    ports = [0.0] * len(found.ways)
    for sweep in range(_SWEEPS):
        _order_ports(cell, found, heights, ports)
        for row in rows if sweep % 2 else reversed(rows):
            wanted = [_wanted(node, found, heights, ports) for node in row]
            sizes = [_size(node) + _APART for node in row]
            heights.update(zip(row, in_order(wanted, sizes), strict=True))
    _order_ports(cell, found, heights, ports)
    top = min(y - _size(node) / 2 for node, y in heights.items())
    return {node: y - top for node, y in heights.items()}, ports


def _stacked(row: Sequence[Node]) -> list[float]:
    return in_order([0.0] * len(row), [_size(node) + _APART for node in row])


def _order_ports(
    cell: Cell, found: Layers, heights: Mapping[Node, float], ports: list[float]
) -> None:
    """Of the two lines of a node, the one that comes from further up ends at the upper label."""
    for first in range(0, 2 * len(cell.nodes), 2):
        from_first, from_second = (heights[found.ways[first + i][-2]] for i in (0, 1))
        sign = 1 if from_first > from_second else -1
        ports[first], ports[first + 1] = sign * PITCH / 2, -sign * PITCH / 2


def _wanted(
    node: Node, found: Layers, heights: Mapping[Node, float], ports: Sequence[float]
) -> float:
    """The mean height at which the lines of a place would be level."""
    levels = []
    for number, way in enumerate(found.ways):
        for a, b in itertools.pairwise(way):
            port = ports[number] if b == way[-1] else 0.0
            if node == a:
                levels.append(heights[b] + port)
            elif node == b:
                levels.append(heights[a] - port)
    return sum(levels) / len(levels) if levels else heights[node]


def in_order(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Middles nearest to those wanted (least squares) at which places of these sizes do not touch.

    The places keep their order. Pool adjacent violators: those that would touch become a block,
    which stands at the mean of what its members want.
    """
    shifts = [sum(sizes[:i]) + sizes[i] / 2 for i in range(len(sizes))]
    blocks: list[tuple[float, int]] = []  # mean, members
    for want, shift in zip(wanted, shifts, strict=True):
        mean, members = want - shift, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean = (before * count + mean * members) / (count + members)
            members += count
        blocks.append((mean, members))
    means = [mean for mean, members in blocks for _ in range(members)]
    return [mean + shift for mean, shift in zip(means, shifts, strict=True)]


def _columns(found: Layers, widths: Sequence[float]) -> tuple[list[tuple[float, float]], float]:
    """Left and right end of each column, from its labels to its nodes, and of the whole."""
    widest = [0.0] * len(found.rows)
    column = {node: number for number, row in enumerate(found.rows) for node in row}
    for number, width in enumerate(widths):
        end = column[found.ways[number][-1]]
        widest[end] = max(widest[end], width)
    spans = [(0.0, ENDS)]
    for width in widest[1:-1]:
        left = spans[-1][1] + _BEND
        spans.append((left, left + width + _ARROW + 2 * RADIUS))
    left = spans[-1][1] + _BEND
    spans.append((left, left + ENDS))
    return spans, left + ENDS


def _middle(spans: Sequence[tuple[float, float]], column: int) -> float:
    left, right = spans[column]
    ends = column in (0, len(spans) - 1)
    return (left + right) / 2 if ends else right - RADIUS


def _points(
    stops: Sequence[tuple[tuple[float, float], float]], port: float, width: float
) -> tuple[Point, ...]:
    """What a line goes through, given the column and the height of each place on its way."""
    (_, start), y = stops[0]
    points = [(start, y)]
    for ends, y in stops[1:-1]:
        points += [(x, y) for x in ends]
    (left, right), y = stops[-1]
    end = right - 2 * RADIUS - _ARROW - width if width else left
    return (*points, (left, y + port), (end, y + port))
