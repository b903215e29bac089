"""Pictures of the results; call them within `mlo.report.style.styled`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlo.report.axes import log_axis, plain
from mlo.report.style import MUTED, Look, new_figure
from problems.benchmarks.bilevel_quadratic.rendering import panel_name, place_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osxD^v+P*<>h"
"""For methods without a knob, which are single points; some of them lie on each other."""

_FLOOR = 1e-9
"""Errors below this are drawn at the lower edge."""

_LABELS = {
    "value": "value: squared norm of the\nexact gradient of h",
    "gap": "gap of value_func:\nh(x) less its minimum",
    "inner_distance": "inner_distance:\nsquared distance to z*(x)",
}


def accuracy_figure(numbers: Mapping[str, Any]) -> Figure:
    """Relative error of one hypergradient against gradient evaluations."""
    groups = numbers["fixed_points"]
    conditions = sorted({g["condition"] for g in groups})
    distances = sorted({g["distance"] for g in groups})
    figure = new_figure(10.5, 6.6)
    grid = figure.subplots(len(distances), len(conditions), sharex=True, sharey="row")
    handles: dict[str, Any] = {}
    for axes, distance in zip(grid, distances, strict=True):
        for one, condition in zip(axes, conditions, strict=True):
            one.set_title(f"condition {condition}, {place_name(distance)}", loc="left")
            chosen = [g for g in groups if (g["condition"], g["distance"]) == (condition, distance)]
            for number, group in enumerate(chosen):
                handles[group["method"]] = _draw_errors(one, group["points"], number)
    grid[0][0].set_ylim(_FLOOR / 2, 2)
    for row in grid:
        row[0].set_ylabel("relative error of the hypergradient")
    for one in grid.flat:
        _both_logarithmic(one)
    for one in grid[-1]:
        one.set_xlabel("gradient evaluations")
    _name(figure, handles)
    return figure


def descent_figure(numbers: Mapping[str, Any]) -> Figure:
    """The metrics of the runs against gradient evaluations."""
    panels = numbers["runs"]
    figure = new_figure(10.5, 8.6)
    grid = figure.subplots(len(_LABELS), len(panels), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, metric in zip(grid, _LABELS, strict=True):
        axes[0].set_ylabel(_LABELS[metric])
        for one, panel in zip(axes, panels, strict=True):
            for number, (method, found) in enumerate(panel["methods"].items()):
                handles[method] = _draw_curve(one, panel["evaluations"], found[metric], number)
            log_axis(one)
    for one, panel in zip(grid[0], panels, strict=True):
        one.set_title(panel_name(panel), loc="left")
    for one in grid[-1]:
        one.set_xlabel("gradient evaluations")
    _name(figure, handles)
    return figure


def _draw_errors(axes: Axes, points: Sequence[Mapping[str, Any]], number: int) -> Any:
    look = Look(number)
    x = [p["evaluations"] for p in points]
    y = [_bounded(p["error"]["median"]) for p in points]
    if len(points) == 1:
        marker = _MARKERS[number % len(_MARKERS)]
        how: dict[str, Any] = {} if marker in "x+" else {"markerfacecolor": "none"}
        how |= {"marker": marker, "markersize": 8, "markeredgewidth": 1.6, "linestyle": "none"}
        return axes.plot(x, y, color=look.color, **how)[0]
    low, high = ([_bounded(p["error"]["quartiles"][k]) for p in points] for k in (0, 1))
    axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
    return axes.plot(x, y, color=look.color, linestyle=look.dashes, linewidth=1.8)[0]


def _draw_curve(axes: Axes, x: Sequence[int], found: Mapping[str, Any], number: int) -> Any:
    look = Look(number)
    low, middle, high = (
        [_drawable(float(v)) for v in found[part]] for part in ("lower", "median", "upper")
    )
    axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
    return axes.plot(x, middle, color=look.color, linestyle=look.dashes, linewidth=1.8)[0]


def _both_logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    log_axis(axes)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def _name(figure: Figure, handles: Mapping[str, Any]) -> None:
    columns = min(len(handles), 6)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=columns, labelcolor=MUTED
    )


def _bounded(value: float | str) -> float:
    return max(_drawable(float(value)), _FLOOR)


def _drawable(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else math.nan
