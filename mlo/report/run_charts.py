"""The charts of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlo.recorded import RecordedRun
from mlo.report import curves
from mlo.report.chart import Line, Picture, line_chart
from mlo.report.curves import Key, Seeds, gather
from mlo.report.weights import spreads

HYPERGRADIENT = "hypergradient of "
"""Before the name of a problem whose gradient went through responses."""


def evaluation_charts(run: RecordedRun) -> list[Picture]:
    """One for each metric, with a line for each stage and evaluation.

    Metrics with distributions have charts of their own.
    """
    apart = {(one.stage, one.evaluation, one.metric) for one in spreads(run)}
    found = gather(run, curves.evaluations)
    groups: dict[str, dict[str, Seeds]] = {}
    for (stage, evaluation, metric), seeds in found.items():
        if (stage, evaluation, metric) not in apart:
            name = stage if evaluation == metric else f"{stage} {evaluation}"
            groups.setdefault(metric, {})[name] = seeds
    return [
        line_chart(metric, metric, [Line(name, s, i) for i, (name, s) in enumerate(of.items())])
        for metric, of in groups.items()
    ]


def loss_charts(run: RecordedRun) -> list[Picture]:
    """One for each stage, with a line for each problem."""
    return _by_stage(run, gather(run, curves.losses), "{stage}", "loss")


def norm_charts(run: RecordedRun) -> list[Picture]:
    """One for each stage, with a line for each problem; hypergradients are marked."""
    answering = curves.answering(run)
    return _by_stage(
        run,
        gather(run, curves.gradient_norms),
        "{stage}",
        "gradient norm",
        lambda stage, problem: HYPERGRADIENT if (stage, problem) in answering else "",
    )


def returned_charts(run: RecordedRun) -> list[Picture]:
    """One for each stage and number that losses returned, with a line for each problem."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for (stage, problem, metric), seeds in gather(run, curves.returned).items():
        lines = groups.setdefault((stage, metric), [])
        lines.append(Line(problem, seeds, len(lines)))
    return [
        line_chart(f"{stage}: {_joined(lines)} {metric}", metric, lines)
        for (stage, metric), lines in groups.items()
    ]


def residual_charts(run: RecordedRun) -> list[Picture]:
    """One for each stage in which linear systems were solved."""
    return _through(gather(run, curves.residuals), "{stage}: residuals", "relative residual")


def product_charts(run: RecordedRun) -> list[Picture]:
    """One for each stage in which the number of products varied."""
    found = gather(run, curves.products)
    varied = {
        key: seeds
        for key, seeds in found.items()
        if len({value for curve in seeds.values() for value in curve.values}) > 1
    }
    return _through(varied, "{stage}: products", "products a move")


def _by_stage(
    run: RecordedRun,
    found: Mapping[Key, Seeds],
    title: str,
    label: str,
    mark: Callable[[str, str], str] = lambda stage, problem: "",
) -> list[Picture]:
    stages = curves.problems(run)
    every = list(dict.fromkeys(name for levels in stages.values() for name in levels))
    groups: dict[str, list[Line]] = {}
    for stage, levels in stages.items():
        for name in levels:
            if (stage, name) in found:
                words = mark(stage, name) + name
                level = f" (level {levels[name]})" if len(levels) > 1 else ""
                # A problem has its colour in every stage.
                line = Line(words + level, found[stage, name], every.index(name))
                groups.setdefault(stage, []).append(line)
    return [
        line_chart(title.replace("{stage}", stage) + _alone(lines), label, lines)
        for stage, lines in groups.items()
    ]


def _through(found: Mapping[Key, Seeds], title: str, label: str) -> list[Picture]:
    groups: dict[str, list[Line]] = {}
    for (stage, problem, through), seeds in found.items():
        lines = groups.setdefault(stage, [])
        lines.append(Line(f"{problem} through {through}", seeds, len(lines)))
    return [
        line_chart(title.replace("{stage}", stage) + _alone(lines), label, lines)
        for stage, lines in groups.items()
    ]


def _alone(lines: list[Line]) -> str:
    """A single line has no legend, so the title names it."""
    return f": {lines[0].label}" if len(lines) == 1 else ""


def _joined(lines: list[Line]) -> str:
    return f"{lines[0].label}'s" if len(lines) == 1 else ""
