"""`python -m problems.nas.benchmarks.difference_page`: picture and table of `nas-difference`.

Draws docs/images/nas_difference.png from the committed results, and writes the table of
docs/nas-difference.md anew.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from problems.nas.pictures import difference_figure
from problems.publishing import ROOT, Numbers, publish
from problems.tables import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Reading = Mapping[str, Any]
"""What was read in one tick, see `problems.nas.benchmarks.comparing.reading`."""

RESULTS = ROOT / "benchmarks/results/nas_difference.json"
PAGE = ROOT / "docs/nas-difference.md"

PARTS = {"cells": "cells, digits", "chain": "chain, MNIST-1D"}
"""Part of the measurement -> its name for people."""

_HEAD = [
    "search",
    "product",
    "cosine with the exact one",
    "relative error",
    "norm over that of the direct gradient",
    "cosine of the whole gradients",
]


def difference_rows(numbers: Numbers) -> Rows:
    """A row for each product: medians over seeds and readings, first and last quarter."""
    rows = [_HEAD]
    for part, found in numbers["parts"].items():
        for dtype in dict.fromkeys(run["dtype"] for run in found["runs"]):
            runs = [run["readings"] for run in found["runs"] if run["dtype"] == dtype]
            quarters = [_joined(quarter(r, last=last) for r in runs) for last in (False, True)]
            rows += _rows(f"{PARTS[part]}, {dtype}", quarters)
    return rows


def quarter(readings: list[Reading], *, last: bool) -> list[Reading]:
    """The readings of the first or the last quarter of a search, at least one."""
    count = -(-len(readings) // 4)
    return readings[-count:] if last else readings[:count]


def difference_picture(numbers: Numbers) -> Figure:
    """Cosine and relative error along the searches of the first seed in cells."""
    found = numbers["parts"]["cells"]["runs"]
    series = {}
    for dtype in dict.fromkeys(run["dtype"] for run in found):
        readings = next(run["readings"] for run in found if run["dtype"] == dtype)
        for radius in readings[0]["radii"]:
            compared = [reading["radii"][radius] for reading in readings]
            series[f"radius {radius}, {dtype}"] = (
                [reading["tick"] for reading in readings],
                [each["cosine"] for each in compared],
                [each["error"] for each in compared],
            )
    return difference_figure(series, "Finite differences beside exact products, cells on digits")


TABLES: Mapping[str, Callable[[Numbers], Rows]] = {"difference": difference_rows}
"""Name in the page -> what renders it."""

PICTURES: Mapping[str, Callable[[Numbers], Figure]] = {
    "docs/images/nas_difference.png": difference_picture
}
"""Place in the repository -> what draws it."""


def _rows(search: str, quarters: list[list[Reading]]) -> Rows:
    def cell(value: Callable[[Reading], float], form: str) -> str:
        middles = (statistics.median(map(value, readings)) for readings in quarters)
        return " / ".join(format(middle, form) for middle in middles)

    def over_direct(size: Callable[[Reading], float]) -> str:
        return cell(lambda r: size(r) * r["product"] / r["direct"], ".2g")

    rows = [
        [search, "exact", "1", "0", over_direct(lambda _: 1.0), "1"],
        [search, "none (first order)", "", "1", "0", cell(lambda r: r["first_order"], ".4f")],
    ]
    for radius in quarters[0][0]["radii"]:

        def compared(key: str, radius: str = radius) -> Callable[[Reading], float]:
            return lambda reading: float(reading["radii"][radius][key])

        rows.append(
            [
                search,
                f"radius {radius}",
                cell(compared("cosine"), ".2f"),
                cell(compared("error"), ".2g"),
                over_direct(compared("norm")),
                cell(compared("total_cosine"), ".4f"),
            ]
        )
    return rows


def _joined(parts: Iterable[list[Reading]]) -> list[Reading]:
    return [reading for part in parts for reading in part]


if __name__ == "__main__":
    publish(RESULTS, PAGE, TABLES, PICTURES)
