"""The picture of mixing weights over time: how a search makes up its mind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy

from mlo.errors import DataError
from mlo.report.axes import plain
from mlo.report.style import INK, MUTED, PAPER, new_figure
from problems.nas.genotype import Genotype
from problems.nas.pictures.words import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from problems.nas.space import Mixing, SearchSpace

_WIDE = 7.4
"""Inches, as wide as a card of a report's page."""

_COLUMNS = 480
"""Of the image: a reading is as wide as the ticks that are nearest to it."""

_MANY = 60
"""Rows from which on they are narrow, and named in brief."""

Array = numpy.ndarray[Any, Any]
Cells = Sequence[tuple[int, int]]
"""Rows of edges and columns of operations."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the weights of a search space are called, for `mixing_figure`.

    Attributes:
        edges: part -> name of each edge, such as "0→2".
        operations: part -> name of each column.
    """

    edges: Mapping[str, Sequence[str]]
    operations: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, space: SearchSpace) -> Self:
        """Name the edges of a space by their ends, and the columns as its longest edge has them.

        Raises:
            DataError: two edges of a part have other operations in the same column.
        """
        edges, operations = {}, {}
        for part, found in space.parts.items():
            longest = max((edge.operations for edge in found), key=len)
            for edge in found:
                if edge.operations != longest[: len(edge.operations)]:
                    raise DataError(
                        f"picture of mixing weights: expected the edges of part '{part}' to share "
                        f"their columns, found {edge.operations} beside {longest}; draw the edges "
                        "of each kind as a part of their own"
                    )
            edges[part] = [f"{edge.source}→{edge.target}" for edge in found]
            operations[part] = longest
        return cls(edges, operations)


def derived(space: SearchSpace, mixing: Mixing) -> dict[str, list[tuple[int, int]]]:
    """The cells of the weights that the derived genotype consists of, part by part.

    Args:
        space: the search space.
        mixing: weights [E, O] of each part.

    Raises:
        ConfigurationError: no genotype can be derived from them.
    """
    genotype = space.genotype(mixing)
    if not isinstance(genotype, Genotype):
        layers = zip(space.parts["layers"], genotype.layers, strict=True)
        return {"layers": [(i, e.operations.index(name)) for i, (e, name) in enumerate(layers)]}
    found = {}
    for part, edges in space.parts.items():
        nodes = getattr(genotype, part).nodes
        chosen = {
            (choice.input, node): choice.operation
            for node, pair in enumerate(nodes, start=2)
            for choice in pair
        }
        found[part] = [
            (row, edge.operations.index(chosen[edge.source, edge.target]))
            for row, edge in enumerate(edges)
            if (edge.source, edge.target) in chosen
        ]
    return found


def mixing_figure(
    ticks: Sequence[int] | Array,
    mixing: Mapping[str, Array],
    edges: Mapping[str, Sequence[str]],
    operations: Mapping[str, Sequence[str]],
    title: str,
    *,
    chosen: Mapping[str, Cells] | None = None,
) -> Figure:
    """A heat map a part: a row an operation of an edge, ticks to the right; within `styled`.

    Args:
        ticks: when the weights were read, increasing, [T].
        mixing: part -> weights [T, E, O].
        edges: part -> name of each edge.
        operations: part -> name of each operation.
        title: of the picture.
        chosen: part -> cells that are marked at the end, see `derived`; without it the largest
            weight of each edge, other than that of "none", at the last reading.

    Raises:
        DataError: there is no reading, ticks do not increase, or shapes do not match the names.
    """
    times = numpy.asarray(ticks)
    found = {part: numpy.asarray(values, dtype=float) for part, values in mixing.items()}
    for part, values in found.items():
        _check(part, values, (len(times), len(edges[part]), len(operations[part])), times)
    rows = max(values[0].size for values in found.values())
    narrow = rows > _MANY
    height = rows * (7.8 if narrow else 11.0) + 92
    figure = new_figure(_WIDE, height / 72)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    most = max(v[numpy.isfinite(v)].max(initial=0) for v in found.values()) or 1.0
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (part, values) in zip(panels, found.items(), strict=True):
        image = _draw_weights(axes, times, values, most)
        marks = _largest(values[-1], operations[part]) if chosen is None else chosen[part]
        _mark(axes, marks, len(operations[part]))
        _name_rows(axes, edges[part], operations[part], narrow)
        axes.set_title(part, loc="left")
        axes.set_xlabel("ticks made")
    place: dict[str, Any] = {"location": "bottom", "fraction": 9 / height, "pad": 9 / height}
    bar = figure.colorbar(image, ax=list(panels), aspect=48, **place)
    bar.set_label("mixing weight; triangles: derived at the end", color=MUTED)
    bar.ax.xaxis.set_major_formatter(lambda value, _: plain(round(value, 6)))
    bar.outline.set_visible(False)
    return figure


def _check(part: str, values: Array, shape: tuple[int, ...], times: Array) -> None:
    if values.shape != shape or not len(times):
        raise DataError(
            f"picture of mixing weights, part '{part}': expected shape {shape}, at least one "
            f"reading of edges by operations, found {values.shape}; give what History.values has"
        )
    if (numpy.diff(times) <= 0).any():
        raise DataError(
            f"picture of mixing weights: expected ticks that increase, found {times.tolist()}; "
            "draw the readings of one run"
        )


def columns(times: Array, count: int = _COLUMNS) -> tuple[Array, tuple[float, float]]:
    """The reading that each of so many equal stretches of time shows, and the ends of all.

    The first and the last reading reach as far beyond them as to half way to their neighbours.
    """
    first, last = (times[0], times[-1])
    before, after = (
        (0.5, 0.5) if len(times) == 1 else ((times[1] - first) / 2, (last - times[-2]) / 2)
    )
    ends = float(first - before), float(last + after)
    middles = ends[0] + (numpy.arange(count) + 0.5) * (ends[1] - ends[0]) / count
    halves = (times[1:] + times[:-1]) / 2
    return numpy.searchsorted(halves, middles, side="right"), ends


def _draw_weights(axes: Axes, times: Array, values: Array, most: float) -> Any:
    from matplotlib.ticker import MaxNLocator

    shown, ends = columns(times)
    pixels = values.reshape(len(times), -1)[shown].T
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    # Even steps of lightness, so that it is the same picture in grey; nothing is white.
    how: dict[str, Any] = {"cmap": "magma_r", "vmin": 0.0, "vmax": most, "aspect": "auto"}
    box = (*ends, len(pixels), 0)
    image = axes.imshow(pixels, extent=box, interpolation="none", **how)
    # No more numbers than fit beside each other, whatever the number of panels.
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    return image


def _largest(last: Array, operations: Sequence[str]) -> Cells:
    allowed = numpy.array([name != "none" for name in operations])
    if not allowed.any():
        return []
    weights = numpy.where(allowed, last, -numpy.inf)
    return [
        (edge, int(row.argmax())) for edge, row in enumerate(weights) if not numpy.isnan(row).any()
    ]


def _mark(axes: Axes, cells: Cells, operations: int) -> None:
    """Triangles right of the rows that are chosen."""
    from matplotlib.transforms import offset_copy

    heights = [edge * operations + operation + 0.5 for edge, operation in cells]
    beside = offset_copy(
        axes.get_yaxis_transform(), axes.get_figure(root=True), x=5, units="points"
    )
    how: dict[str, Any] = {"marker": "<", "color": INK, "markersize": 4.5, "linestyle": "none"}
    axes.plot([1.0] * len(heights), heights, transform=beside, clip_on=False, **how)


def _name_rows(axes: Axes, edges: Sequence[str], operations: Sequence[str], narrow: bool) -> None:
    """Operations beside their rows, edges further left, and a line between edges."""
    count = len(operations)
    names = [words(name).brief if narrow else words(name).name for name in operations]
    letters = 6.5 if narrow else 8.0
    axes.set_yticks(numpy.arange(len(edges) * count) + 0.5, names * len(edges), fontsize=letters)
    axes.tick_params(axis="y", length=0, pad=2)
    left = -letters * (0.68 * max(map(len, names)) + 0.9)
    how: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 9, "color": INK}
    how |= {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    for number, edge in enumerate(edges):
        axes.annotate(edge, (0, (number + 0.5) * count), (left, 0), **how)
    for number in range(1, len(edges)):
        axes.axhline(number * count, color=PAPER, linewidth=1.6)
    axes.set_ylim(len(edges) * count, 0)
