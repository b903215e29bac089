"""Pictures of the study; call them within `mlo.report.style.styled`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlo.report.axes import plain
from mlo.report.style import MUTED, Look, new_figure
from problems.reweighting.study.rendering import (
    accuracies,
    case_name,
    cases,
    judged,
)
from problems.tables import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Sequence[Mapping[str, Any]]


def accuracy_figure(numbers: Mapping[str, Any]) -> Figure:
    """Test accuracy of every method and seed, with means and standard errors."""
    return _rows_of_points(numbers, ("method", "equal compute"))


def ablation_figure(numbers: Mapping[str, Any]) -> Figure:
    """The same of LFM with one change each, beside LFM as it was tuned."""
    return _rows_of_points(numbers, ("ablation",), first="lfm")


def weights_figure(numbers: Mapping[str, Any]) -> Figure:
    """Mean weight of the examples of each class, relative to the mean of all, by class size."""
    found = [case for case in cases(numbers) if case[1].startswith("imbalance")]
    figure = new_figure(10.0, 3.6)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, case in zip(panels, found, strict=True):
        weighing = _weighing(numbers, case, ("method",))
        for number, result in enumerate(weighing):
            sizes = result["runs"][0]["counts"]
            means = [
                statistics.mean(run["weights"]["classes"][k] / _mean(run) for run in result["runs"])
                for k in range(len(sizes))
            ]
            look = Look(number)
            axes.plot(
                sizes,
                means,
                color=look.color,
                linestyle=look.dashes,
                marker="o",
                markersize=4,
                label=result["name"],
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: plain(value))
        axes.set_title(case_name(case), loc="left")
        axes.set_xlabel("training examples of the class")
    panels[0].set_ylabel("mean weight of the class,\nrelative to the mean of all")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def reliability_figure(numbers: Mapping[str, Any]) -> Figure:
    """Accuracy against how well the weights tell right from wrong labels, a point a seed."""
    found = [case for case in cases(numbers) if case[1].startswith("flip")]
    figure = new_figure(10.0, 3.6)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, case in zip(panels, found, strict=True):
        weighing = _weighing(numbers, case, ("method", "ablation"))
        methods = [r for r in weighing if r["role"] == "method"]
        for number, result in enumerate(methods):
            _scatter(axes, result, color=Look(number).color, label=result["name"])
        for number, result in enumerate(r for r in weighing if r["role"] == "ablation"):
            label = "LFM with one change" if number == 0 else None
            _scatter(axes, result, color=MUTED, label=label, marker="x", zorder=1)
        axes.set_title(case_name(case), loc="left")
        axes.set_xlabel("area under the ROC curve of the weights")
    panels[0].set_ylabel("test accuracy, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _scatter(axes: Axes, result: Mapping[str, Any], **look: Any) -> None:
    areas = [run["weights"]["area"] for run in result["runs"]]
    axes.scatter(areas, accuracies(result), s=22, **look)


def _rows_of_points(
    numbers: Mapping[str, Any], roles: tuple[str, ...], first: str | None = None
) -> Figure:
    """A panel for each case, a row for each name: points of seeds, mean and standard error."""
    groups = {case: _of(numbers, case, roles) for case in cases(numbers)}
    if first is not None:
        for case, group in groups.items():
            (leading,) = (r for r in _of(numbers, case, ("method",)) if r["name"] == first)
            seeds = len(group[0]["runs"])
            groups[case] = [{**leading, "runs": leading["runs"][:seeds]}, *group]
    names = [result["name"] for result in next(iter(groups.values()))]
    figure = new_figure(11.0, 1.2 + 0.3 * len(names))
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (case, group) in zip(panels, groups.items(), strict=True):
        for row, result in enumerate(group):
            values = accuracies(result, judged(result))
            middle, error = mean_and_error(values)
            color = Look(1 if result["name"].startswith("lfm") else 0).color
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.35, markersize=4)
            axes.errorbar(middle, row, xerr=error, fmt="|", color=color, markersize=12, capsize=0)
        axes.set_title(case_name(case), loc="left")
        axes.set_xlabel("test accuracy, %")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _of(numbers: Mapping[str, Any], case: tuple[str, str], roles: tuple[str, ...]) -> Results:
    return [
        r for r in numbers["results"] if (r["data"], r["damage"]) == case and r["role"] in roles
    ]


def _weighing(numbers: Mapping[str, Any], case: tuple[str, str], roles: tuple[str, ...]) -> Results:
    """Results of programs that weigh examples, with the runs that did not fail."""
    found = [
        {**r, "runs": [run for run in r["runs"] if "weights" in run]}
        for r in _of(numbers, case, roles)
    ]
    return [r for r in found if r["runs"]]


def _mean(run: Mapping[str, Any]) -> float:
    return max(float(run["weights"]["mean"]), 1e-300)
