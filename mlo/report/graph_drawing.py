"""The dependency graph as a drawing: boxes by level, thick arrows where a response runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlo.report.graph_places import LEGEND, LINE, MARGIN, Box, Point, places, routes, texts
from mlo.report.layers import Edge, Layers, Node, layers
from mlo.report.style import GRID, INK, MUTED, PALETTE, PAPER, new_figure, styled
from mlo.report.svg import standalone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def graph_svg(drawing: Mapping[str, Any]) -> str:
    """Draw a dependency graph as an SVG document.

    Args:
        drawing: the graph as `DependencyGraph.plain` and start records give it.

    Returns:
        The document, on white.

    Raises:
        DataError: matplotlib is not installed.
    """
    names = ", ".join(problem["name"] for problem in drawing["problems"])
    with styled():
        return standalone(graph_figure(drawing), f"Dependency graph of {names}")


def graph_figure(drawing: Mapping[str, Any]) -> Figure:
    """Draw a dependency graph; call it within `styled`."""
    found = layers(drawing)
    problems = {problem["name"]: problem for problem in drawing["problems"]}
    boxes, width, height = places(found, problems)
    figure = new_figure(width / 72, height / 72)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    _draw_levels(axes, found, problems, boxes)
    for edge, points in zip(found.edges, routes(found, boxes), strict=True):
        _draw_edge(axes, edge, points)
    for name, problem in problems.items():
        _draw_box(axes, problem, boxes[name])
    _draw_legend(axes)
    return figure


def _draw_edge(axes: Axes, edge: Edge, points: list[Point]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x, y), (u, v) in itertools.pairwise(points):
        if abs(v - y) < 1 or abs(u - x) < 0.5:
            vertices.append((u, v))
            codes.append(Path.LINETO)
        else:
            bend = (v - y) * 0.5
            vertices += [(x, y + bend), (u, v - bend), (u, v)]
            codes += [Path.CURVE4] * 3
    color, width = (next(iter(PALETTE)), 2.8) if edge.response else (MUTED, 1.0)
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>,head_length=3.4,head_width=1.7"
            if edge.response
            else "-|>,head_length=5,head_width=2.2",
            mutation_scale=2.4 if edge.response else 1.4,
            linewidth=width,
            color=color,
            shrinkA=0,
            shrinkB=1.5,
            capstyle="butt",
            joinstyle="miter",
        )
    )


def _draw_box(axes: Axes, problem: Mapping[str, Any], box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, wide, high = box
    corner = (x - wide / 2 + 5, y - high / 2 + 5)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            wide - 10,
            high - 10,
            boxstyle="round,pad=5",
            facecolor=PAPER,
            edgecolor=INK,
            linewidth=1.1,
        )
    )
    lines = texts(problem)
    for line, text in enumerate(lines):
        height = y + ((len(lines) - 1) / 2 - line) * LINE
        weight, color = ("bold", INK) if line == 0 else ("normal", MUTED)
        axes.text(
            x,
            height,
            text,
            ha="center",
            va="center_baseline",
            fontsize=10,
            weight=weight,
            color=color,
        )


def _draw_levels(
    axes: Axes, found: Layers, problems: Mapping[str, Any], boxes: Mapping[Node, Box]
) -> None:
    for row in found.rows:
        name = next(node for node in row if isinstance(node, str))
        _, y, _, _ = boxes[name]
        label = f"level {problems[name]['level']}"
        axes.text(MARGIN, y, label, ha="left", va="center_baseline", fontsize=10, color=MUTED)


def _draw_legend(axes: Axes) -> None:
    rows = ((True, "read, and a hypergradient runs along it"), (False, "read only"))
    axes.axhline(LEGEND + 1, color=GRID, linewidth=0.8)
    for line, (response, text) in enumerate(rows):
        y = LEGEND - 12 - line * LINE
        _draw_edge(axes, Edge("", "", response), [(MARGIN, y), (MARGIN + 30, y)])
        axes.text(MARGIN + 38, y, text, ha="left", va="center_baseline", fontsize=10, color=MUTED)
