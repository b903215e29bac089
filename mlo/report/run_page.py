"""The page of one run."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from mlo.metrics import by_key, heading, mean, spread
from mlo.recorded import Record, RecordedRun
from mlo.report import facts
from mlo.report.blocks import (
    Block,
    Cards,
    Cell,
    Graph,
    Own,
    Page,
    Rows,
    Section,
    Words,
    head,
    number,
)
from mlo.report.chart import Picture
from mlo.report.graph_drawing import graph_figure
from mlo.report.run_charts import (
    evaluation_charts,
    loss_charts,
    norm_charts,
    product_charts,
    residual_charts,
    returned_charts,
)
from mlo.report.solves import failed, sentence, solves
from mlo.report.spread_charts import spread_charts
from mlo.report.weights import spreads

THICK = "Thick lines are means over the seeds, as far as all have got; thin lines are single seeds."
"""How to read the charts of several seeds."""


def run_page(run: RecordedRun) -> Page:
    """Say everything about one run."""
    return Page(
        title=run.recipe,
        badge=facts.badge(run),
        status="",
        notice=facts.notice(run),
        command=facts.command(run),
        facts=facts.facts(run),
        sections=[section for section in _sections(run) if section.blocks],
    )


def _sections(run: RecordedRun) -> Iterator[Section]:
    yield Section("Final metrics", [_metrics(run)])
    said: list[Block] = [Words(THICK)] if run.config["seeds"] > 1 else []
    yield Section(
        "Evaluations", said + _cards(evaluation_charts(run), "No evaluation was recorded.")
    )
    yield Section("Losses", _cards(loss_charts(run), "No tick was recorded."))
    yield Section("Gradient norms", _cards(norm_charts(run), "No tick was recorded."))
    yield Section("Hypergradients", _hypergradients(run))
    yield Section("Learned weights", _cards(spread_charts(spreads(run)), ""))
    yield Section("Returned by the losses", _cards(returned_charts(run), ""))
    yield Section("Pictures of the recipe", list(_own(run)))
    yield Section("Dependency graphs", list(_graphs(run)))
    yield Section("Configuration", facts.settings(run))
    yield Section("Versions and hardware", [facts.table(run.versions)])
    yield Section("Damaged records", list(_damage(run)))


def _metrics(run: RecordedRun) -> Block:
    found = by_key(run.metrics)
    if not found:
        return Words("No stage is over that has final metrics.")
    seeds = sorted({seed for of in found.values() for seed in of})
    columns = ["mean", "spread", *(f"seed {seed}" for seed in seeds)]
    rows = []
    for key, of in found.items():
        average, around = mean(of.values()), spread(list(of.values()))
        each = [number(of.get(seed)) for seed in seeds]
        rows.append([Cell(heading(key)), number(average, strong=True), number(around), *each])
    return Rows(head("metric", *columns, numbers=len(columns)), rows)


def _cards(pictures: list[Picture], otherwise: str) -> list[Block]:
    if pictures:
        return [Cards(pictures)]
    return [Words(otherwise)] if otherwise else []


def _hypergradients(run: RecordedRun) -> list[Block]:
    found = solves(run)
    if not found:
        return [Words("No problem differentiated through another one.")]
    columns = ("solves a move", "products a move", "median residual", "worst residual")
    rows = []
    for (stage, problem, through, method), of in found.items():
        rows.append(
            [
                Cell(stage),
                Cell(problem),
                Cell(through),
                Cell(method),
                number(mean(of.solves)),
                number(mean(of.products)),
                number(of.median),
                number(of.worst),
                _outcomes(of.shares),
            ]
        )
    titles = head("stage", "problem", "through", "method", *columns, numbers=4)
    pictures = residual_charts(run)
    blocks: list[Block] = [Rows([*titles, Cell("outcomes")], rows)]
    seen = dict.fromkeys(name for of in found.values() for name in of.outcomes)
    blocks += [Words(f"Outcome {_spoken(name)}: {sentence(name)}.") for name in seen]
    if not pictures:
        blocks.append(Words("No linear system was solved, so there are no residuals."))
    charts = [*pictures, *product_charts(run)]
    return [*blocks, *([Cards(charts)] if charts else [])]


def _outcomes(shares: dict[str, float]) -> Cell:
    words = [
        f"{100 * share:.3g}% {_spoken(name)}" + (" (failed)" if failed(name) else "")
        for name, share in shares.items()
    ]
    bad = any(map(failed, shares))
    return Cell(", ".join(words), strong=bad, bad=bad)


def _spoken(outcome: str) -> str:
    return outcome.replace("_", " ")


def _own(run: RecordedRun) -> Iterator[Block]:
    for path in run.plots:
        drawn = path.with_suffix(".svg")
        if drawn.exists():
            yield Own(path.stem.replace("-", " "), drawn.read_text(encoding="utf-8"))


def _graphs(run: RecordedRun) -> Iterator[Block]:
    starts: dict[str, Record] = {}
    for stage in run.stages:
        if stage.start is not None:
            starts.setdefault(stage.name, stage.start)
    for name, start in starts.items():
        draw = functools.partial(graph_figure, start["drawing"])
        yield Graph(Picture(name, draw), start["graph"])


def _damage(run: RecordedRun) -> Iterator[Block]:
    for stage in run.stages:
        if stage.damaged:
            lines = "line" if stage.damaged == 1 else "lines"
            where = f"seed {stage.seed}, {stage.name}"
            yield Words(f"{where}: {stage.damaged} {lines} could not be read and are left out.")
