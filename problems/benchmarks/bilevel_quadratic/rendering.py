"""Tables of the results: rows of text, for the terminal and for the guide."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlo.records import Outcome
from problems.tables import Rows

TARGETS = (1e-3, 1e-6)
"""Relative errors of the hypergradient that the tables ask for."""

COSTED = (10, 100)
"""Values of a knob at which costs are shown: the first measured ones that are at least this, or the
last one."""


def accuracy_rows(numbers: Mapping[str, Any]) -> Rows:
    """Gradient evaluations and time to each target, with the inner problem solved."""
    groups = [g for g in numbers["fixed_points"] if g["distance"] == 0]
    columns = list(itertools.product(_conditions(groups), TARGETS))
    rows = [["method", *(f"cond. {c}: {_exponent(target)}" for c, target in columns)]]
    for method in _methods(groups):
        cells = (_cost_to(_points(groups, c, method), target) for c, target in columns)
        rows.append([method, *cells])
    return rows


def bias_rows(numbers: Mapping[str, Any]) -> Rows:
    """The least error that any amount of the work gave, with the inner problem solved and off."""
    groups = numbers["fixed_points"]
    distances = sorted({g["distance"] for g in groups})
    columns = list(itertools.product(_conditions(groups), distances))
    rows = [["method", *(f"cond. {c}: {place_name(d)}" for c, d in columns)]]
    for method in _methods(groups):
        row = [method]
        for condition, distance in columns:
            points = _points(groups, condition, method, distance)
            best = min(points, key=lambda p: float(p["error"]["median"]))
            row.append(with_quartiles(best["error"]))
        rows.append(row)
    return rows


def cost_rows(numbers: Mapping[str, Any]) -> Rows:
    """What one hypergradient costs."""
    groups = [g for g in numbers["fixed_points"] if g["distance"] == 0]
    condition = _conditions(groups)[-1]  # where no solver stops before its limit
    rows = [["method", "gradient evaluations", "products", "ms", "peak memory, vectors"]]
    for group in groups:
        if group["condition"] != condition:
            continue
        for point in _costed(group):
            rows.append(
                [
                    _named(group, point),
                    str(point["evaluations"]),
                    str(point["products"]),
                    short(point["milliseconds"]["median"]),
                    f"{point['memory']:.0f}",
                ]
            )
    return rows


def batch_rows(numbers: Mapping[str, Any]) -> Rows:
    """The error of hypergradients of batches against that of the whole."""
    points = numbers["batches"]
    sizes = sorted({p["batch"] for p in points})
    rows = [["method", *(f"batches of {size}" for size in sizes)]]
    for method in _methods(points):
        chosen = {p["batch"]: p for p in points if p["method"] == method}
        first = chosen[sizes[0]]
        cells = (
            p["outcome"] if Outcome[p["outcome"].upper()].failed else with_quartiles(p["error"])
            for p in (chosen[size] for size in sizes)
        )
        rows.append([_named(first, first), *cells])
    return rows


def _named(group: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """A method with the value of its knob."""
    setting = f"({group['knob']}={point['value']})" if group["knob"] else ""
    return f"{group['method']}{setting}"


def descent_rows(numbers: Mapping[str, Any]) -> Rows:
    """Where the runs came to."""
    metrics = ["`value`", "gap of `value_func`", "`inner_distance`"]
    rows = [["run", "method", "rate", "moves", *metrics]]
    for panel in numbers["runs"]:
        first = next(iter(panel["methods"].values()))
        start = (_at(first[name], 0) for name in ("value", "gap", "inner_distance"))
        rows.append([panel_name(panel), "(start)", "", "0", *start])
        for method, found in panel["methods"].items():
            ends = (_at(found[name], -1) for name in ("value", "gap", "inner_distance"))
            rows.append(
                [panel_name(panel), method, f"{found['rate']:g}", str(found["ticks"]), *ends]
            )
    return rows


def panel_name(panel: Mapping[str, Any]) -> str:
    """A run in short: its condition number, and its batches."""
    whole = panel["batch"] is None
    return f"cond. {panel['condition']}" + ("" if whole else f", batches of {panel['batch']}")


def short(value: float | str) -> str:
    """A number in two digits."""
    number = float(value)
    if number == 0 or 1e-2 <= abs(number) < 1e3:
        return f"{number:.2g}" if abs(number) < 100 else f"{number:.0f}"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def with_quartiles(found: Mapping[str, Any]) -> str:
    """The median, and the quartiles in parentheses."""
    low, high = found["quartiles"]
    return f"{short(found['median'])} ({short(low)} to {short(high)})"


def _at(curve: Mapping[str, Any], k: int) -> str:
    quartiles = [curve["lower"][k], curve["upper"][k]]
    return with_quartiles({"median": curve["median"][k], "quartiles": quartiles})


def _conditions(groups: Sequence[Mapping[str, Any]]) -> list[int]:
    return sorted({g["condition"] for g in groups})


def _methods(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(g["method"] for g in groups))


def _points(
    groups: Sequence[Mapping[str, Any]], condition: int, method: str, distance: float = 0.0
) -> list[dict[str, Any]]:
    wanted = (condition, method, distance)
    return next(
        g["points"] for g in groups if (g["condition"], g["method"], g["distance"]) == wanted
    )


def _cost_to(points: Sequence[Mapping[str, Any]], target: float) -> str:
    """The least work after which the error was, and stayed, below the target."""
    above = [p for p in points if not float(p["error"]["median"]) <= target]
    if not above:
        first = points[0]
    elif above[-1] is points[-1]:
        return "-" if len(points) == 1 else f"more than {points[-1]['evaluations']}"
    else:
        first = points[points.index(above[-1]) + 1]
    return f"{first['evaluations']} ({short(first['milliseconds']['median'])} ms)"


def _costed(group: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The points whose costs are shown."""
    points = group["points"]
    chosen = [next((p for p in points if p["value"] >= least), points[-1]) for least in COSTED]
    yield from {p["value"]: p for p in chosen}.values()


def _exponent(value: float) -> str:
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def place_name(distance: float) -> str:
    """How far off the inner problem stands, in short."""
    return "solved" if distance == 0 else f"{100 * distance:g} % off"
