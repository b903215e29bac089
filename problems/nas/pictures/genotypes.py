"""The picture of a genotype: its two cells, or its chain of layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlo.report.style import INK, MUTED, PAPER, new_figure
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.pictures.cell_places import (
    ENDS,
    LABEL,
    OUTPUT,
    RADIUS,
    Line,
    Places,
    Point,
    cell_places,
)
from problems.nas.pictures.words import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _HEADING, _BETWEEN = 12.0, 26.0, 16.0
"""Points: around all, a line of heading, and between two cells."""

_WIDE = 7.4 * 72
"""Points of the narrowest figure; also where a chain is broken into rows."""

_LETTERS, _PAD = 9.0, 7.0
"""Size of the letters of labels, and points beside them: a page may have a wider font."""

_STEP, _ROW = 20.0, 34.0
"""Points between the boxes and between the rows of a chain."""

_NAMES = {"0": "cₖ₋₂", "1": "cₖ₋₁", OUTPUT: "cₖ"}


def genotype_figure(genotype: Genotype | MacroGenotype, title: str) -> Figure:
    """Draw a genotype, coloured by the kinds of its operations; call it within `styled`.

    Args:
        genotype: of cells, which are drawn as graphs from their inputs to their output; or a
            chain, which is drawn as boxes in rows.
        title: of the picture.
    """
    if isinstance(genotype, MacroGenotype):
        return _chain_figure(genotype, title)
    cells = {"normal cell": genotype.normal, "reduction cell": genotype.reduce}
    found = {name: cell_places(cell, _wide) for name, cell in cells.items()}
    width = max(_WIDE, *(places.width + 2 * _MARGIN for places in found.values()))
    height = sum(_HEADING + places.height + _BETWEEN for places in found.values())
    axes = _canvas(width, height + _HEADING, title)
    top = _MARGIN + _HEADING
    for name, places in found.items():
        axes.text(_MARGIN, top, name, va="center", fontsize=10, color=MUTED)
        top += _HEADING
        _draw_cell(axes, places, ((width - places.width) / 2, top))
        top += places.height + _BETWEEN
    return axes.get_figure()  # type: ignore[return-value]  # it is in no subfigure


def _chain_figure(genotype: MacroGenotype, title: str) -> Figure:
    names = ["input", *(words(operation).name for operation in genotype.layers), "output"]
    colors = [INK, *(words(operation).color for operation in genotype.layers), INK]
    boxes: list[tuple[float, int, float]] = []  # left, row, width
    left, row = _MARGIN, 0
    for width in map(_wide, names):
        if boxes and left + width > _WIDE - _MARGIN:
            left, row = _MARGIN + _STEP, row + 1
        boxes.append((left, row, width))
        left += width + _STEP
    widest = max(left + width for left, _, width in boxes) + _MARGIN
    axes = _canvas(max(_WIDE, widest), _HEADING + LABEL + row * _ROW + 14, title)
    top = _MARGIN + _HEADING + 12
    for (x, above, wide), (u, below, _) in itertools.pairwise(boxes):
        _draw_step(axes, (x + wide, top + above * _ROW), (u, top + below * _ROW))
    for (x, above, wide), name, color in zip(boxes, names, colors, strict=True):
        _draw_label(axes, (x, top + above * _ROW), wide, name, color)
    return axes.get_figure()  # type: ignore[return-value]  # it is in no subfigure


def _canvas(width: float, height: float, title: str) -> Axes:
    """Axes over a whole figure, in points from its upper left corner."""
    height += 2 * _MARGIN
    figure = new_figure(width / 72, height / 72)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(_MARGIN, _MARGIN + 6, title, va="center", fontsize=10, color=INK)
    return axes


def _wide(text: str) -> float:
    """Points that a label with this text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_LETTERS)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) + 2 * _PAD


def _draw_cell(axes: Axes, places: Places, corner: Point) -> None:
    x, y = corner
    # The lines of the output first: they are the least of it, and lie below the others.
    for line in sorted(places.lines, key=lambda line: line.operation is not None):
        points = [(x + u, y + v) for u, v in line.points]
        u, v = line.node
        _draw_line(axes, line, points, (x + u, y + v))
    for state, (u, v) in places.states.items():
        _draw_state(axes, state, (x + u, y + v))


def _draw_line(axes: Axes, line: Line, points: Sequence[Point], node: Point) -> None:
    if line.operation is None:
        _draw_curve(axes, points, MUTED, 0.9)
        _draw_arrow(axes, points[-2], points[-1], MUTED)
        return
    name, _, color = words(line.operation)
    _draw_curve(axes, points, color, 1.4)
    left, middle = points[-1]
    _draw_arrow(axes, (left + line.width, middle), node, color, shrink=RADIUS)
    _draw_label(axes, (left, middle), line.width, name, color)


def _draw_curve(axes: Axes, points: Sequence[Point], color: str, width: float) -> None:
    """Bend from every even point to the next, and go straight from every odd one."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for number, ((x, y), (u, v)) in enumerate(itertools.pairwise(points)):
        if number % 2:
            vertices.append((u, v))
            codes.append(Path.LINETO)
        else:
            bend = (u - x) / 2
            vertices += [(x + bend, y), (u - bend, v), (u, v)]
            codes += [Path.CURVE4] * 3
    path = Path(vertices, codes)
    axes.add_patch(PathPatch(path, fill=False, edgecolor=color, linewidth=width))


def _draw_arrow(axes: Axes, start: Point, end: Point, color: str, *, shrink: float = 0.0) -> None:
    from matplotlib.patches import FancyArrowPatch

    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>,head_length=4.5,head_width=2",
            mutation_scale=1.3,
            linewidth=1.2,
            color=color,
            shrinkA=0,
            shrinkB=shrink,
        )
    )


def _draw_step(axes: Axes, start: Point, end: Point) -> None:
    """An arrow to the next box of a chain, which may begin the next row."""
    (x, y), (u, v) = start, end
    if y == v:
        _draw_arrow(axes, start, end, MUTED)
        return
    half = (y + v) / 2
    ways = [x, x + 8, x + 8, u - 14, u - 14, u - 8], [y, y, half, half, v, v]
    axes.plot(*ways, color=MUTED, linewidth=1.2, solid_joinstyle="round")
    _draw_arrow(axes, (u - 10, v), end, MUTED)


def _draw_label(
    axes: Axes, left: Point, width: float, name: str, color: str, *, letters: float = _LETTERS
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = left
    where = (x + 4, y - LABEL / 2 + 4), width - 8, LABEL - 8
    for face, alpha in ((PAPER, 1.0), (color, 0.16)):  # the tint alone would let lines through
        axes.add_patch(
            FancyBboxPatch(
                *where, boxstyle="round,pad=4", facecolor=face, edgecolor="none", alpha=alpha
            )
        )
    edge: dict[str, Any] = {"fill": False, "edgecolor": color, "linewidth": 1.1}
    axes.add_patch(FancyBboxPatch(*where, boxstyle="round,pad=4", **edge))
    how: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": letters}
    axes.text(x + width / 2, y, name, color=INK, **how)


def _draw_state(axes: Axes, state: str, middle: Point) -> None:
    from matplotlib.patches import Circle

    if state in _NAMES:
        x, y = middle
        _draw_label(axes, (x - ENDS / 2, y), ENDS, _NAMES[state], INK, letters=11)
        return
    axes.add_patch(Circle(middle, RADIUS, facecolor=PAPER, edgecolor=INK, linewidth=1.1))
    where: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
    axes.text(*middle, str(int(state) - 2), fontsize=_LETTERS, color=INK, **where)
