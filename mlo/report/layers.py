"""Places for the boxes and the ways of a dependency graph: a row for each level."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Node = str | tuple[int, int]
"""A problem, or (edge, level) where an edge passes a level between its ends."""


@dataclasses.dataclass(frozen=True)
class Edge:
    """One arrow: from the problem that is read to the one that reads it."""

    read: str
    by: str
    response: bool


@dataclasses.dataclass(frozen=True)
class Layers:
    """Rows of a drawing, the lowest level first, each from left to right.

    Attributes:
        rows: problems, and places where edges pass.
        ways: for each edge the nodes it goes through, from what is read to who reads it.
        edges: the edges themselves.
    """

    rows: tuple[tuple[Node, ...], ...]
    ways: tuple[tuple[Node, ...], ...]
    edges: tuple[Edge, ...]


def layers(drawing: Mapping[str, Any]) -> Layers:
    """Arrange a graph, so that few edges cross.

    Args:
        drawing: the graph as `mlo.drawing.as_plain` gives it.
    """
    level = {problem["name"]: problem["level"] for problem in drawing["problems"]}
    ranks = {number: rank for rank, number in enumerate(sorted(set(level.values())))}
    rank = {name: ranks[number] for name, number in level.items()}
    edges = tuple(Edge(e["read"], e["by"], e["response"]) for e in drawing["edges"])
    rows: list[list[Node]] = [[] for _ in ranks]
    for name, row in rank.items():
        rows[row].append(name)
    ways: list[tuple[Node, ...]] = []
    for number, edge in enumerate(edges):
        step = 1 if rank[edge.by] > rank[edge.read] else -1
        between = range(rank[edge.read] + step, rank[edge.by], step)
        for row in between:
            rows[row].append((number, row))
        ways.append((edge.read, *((number, row) for row in between), edge.by))
    return Layers(tuple(map(tuple, _ordered(rows, ways))), tuple(ways), edges)


def _ordered(rows: list[list[Node]], ways: Sequence[tuple[Node, ...]]) -> list[list[Node]]:
    """Sweep up and down, each time sorting a row by where its neighbours stand."""
    beside: dict[Node, set[Node]] = {node: set() for row in rows for node in row}
    for way in ways:
        for a, b in itertools.pairwise(way):
            beside[a].add(b)
            beside[b].add(a)
    best = [list(row) for row in rows]
    fewest = crossings(rows, ways)
    for sweep in range(8):
        upwards = sweep % 2 == 0
        order = range(1, len(rows)) if upwards else range(len(rows) - 2, -1, -1)
        for row in order:
            fixed = rows[row - 1 if upwards else row + 1]
            place = {node: (i + 0.5) / len(fixed) for i, node in enumerate(fixed)}
            own = {node: (i + 0.5) / len(rows[row]) for i, node in enumerate(rows[row])}
            rows[row].sort(key=lambda node: _centre(beside[node], place, own[node]))
        found = crossings(rows, ways)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def crossings(rows: Sequence[Sequence[Node]], ways: Sequence[tuple[Node, ...]]) -> int:
    """How many pairs of edges cross between neighbouring rows."""
    place = {node: (row, i) for row, nodes in enumerate(rows) for i, node in enumerate(nodes)}
    parts: dict[int, list[tuple[int, int]]] = {}
    for way in ways:
        for a, b in itertools.pairwise(way):
            (low, left), (high, right) = sorted((place[a], place[b]))
            if low != high:
                parts.setdefault(low, []).append((left, right))
    return sum(
        (a - c) * (b - d) < 0
        for pairs in parts.values()
        for (a, b), (c, d) in itertools.combinations(pairs, 2)
    )


def _centre(neighbours: set[Node], place: Mapping[Node, float], own: float) -> float:
    known = [place[node] for node in neighbours if node in place]
    return sum(known) / len(known) if known else own
