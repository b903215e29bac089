"""Pictures of the study; call them within `mlo.report.style.styled`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlo.report.axes import plain
from mlo.report.style import INK, MUTED, Look, new_figure
from problems.nas.study.rendering import accuracies, choice_rows
from problems.tables import mean_and_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_figure(numbers: Mapping[str, Any]) -> Figure:
    """Test accuracy of every method and seed, with means and standard errors."""
    results = numbers["results"]
    figure = new_figure(7.4, 0.36 * len(results) + 0.9)
    axes = figure.add_subplot()
    for row, result in enumerate(results):
        found = accuracies(result)
        middle, error = mean_and_error(found)
        axes.plot(found, [row] * len(found), "o", color=Look(0).color, alpha=0.45, markersize=5)
        axes.errorbar(
            middle, row, xerr=error, fmt="|", color=INK, markersize=13, capsize=3, linewidth=1.4
        )
    axes.set_yticks(range(len(results)), [result["method"] for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy in %; bar: mean and standard error", color=MUTED)
    axes.xaxis.set_major_formatter(lambda value, _: plain(value))
    return figure


def choices_figure(numbers: Mapping[str, Any]) -> Figure:
    """Left, shares of the operations in what was found; right, skip connections over searches."""
    heads, *rows = choice_rows(numbers)
    figure = new_figure(10.0, 0.36 * len(rows) + 1.9)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    begun = [0.0] * len(rows)
    for number, name in enumerate(heads[1:]):
        counts = [float(row[1 + number] or 0) for row in rows]
        totals = [sum(float(cell or 0) for cell in row[1:]) or 1.0 for row in rows]
        shares = [100 * count / total for count, total in zip(counts, totals, strict=True)]
        left.barh(range(len(rows)), shares, left=begun, color=Look(number).color, label=name)
        begun = [a + b for a, b in zip(begun, shares, strict=True)]
    left.set_yticks(range(len(rows)), [row[0] for row in rows])
    left.invert_yaxis()
    left.set_xlabel("% of the layers, all seeds", color=MUTED)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    for number, result in enumerate(r for r in numbers["results"] if _searches(r)):
        runs = [run["search"] for run in result["runs"] if "search" in run]
        ticks = [tick / runs[0]["ticks"][-1] for tick in runs[0]["ticks"]]
        columns = zip(*(run["skips"] for run in runs), strict=True)
        means = [sum(column) / len(runs) for column in columns]
        look = Look(number)
        right.plot(ticks, means, color=look.color, linestyle=look.dashes, label=result["method"])
    right.set_xlabel("share of the search", color=MUTED)
    right.set_ylabel("skip connections, mean", color=MUTED)
    right.set_ylim(bottom=-0.1)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


def _searches(result: Mapping[str, Any]) -> bool:
    return any("search" in run for run in result["runs"])
