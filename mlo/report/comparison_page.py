"""The page that compares runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlo.metrics import Key as MetricKey
from mlo.metrics import by_key, heading, mean, spread
from mlo.recorded import RecordedRun
from mlo.report import curves, facts
from mlo.report.blocks import DASH, Block, Cards, Cell, Page, Rows, Section, Words, head
from mlo.report.chart import Line, Picture, line_chart
from mlo.report.curves import Entries, Key, gather
from mlo.report.run_names import run_names
from mlo.report.run_page import THICK
from mlo.report.style import Look

_CELLS = "Mean ± spread (sample standard deviation) over the seeds, their number in brackets."

_NAMED = 5
"""The most runs that each chart has room to name."""


def comparison_page(runs: Sequence[RecordedRun]) -> Page:
    """Say what is alike and what differs between runs, of one recipe or of several."""
    names = run_names([run.path for run in runs])
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    over = sum(run.complete for run in runs)
    unfinished = [] if over == len(runs) else [f"{over} of {len(runs)} runs are completed."]
    return Page(
        title=" and ".join(recipes) if len(recipes) < 3 else f"{len(recipes)} recipes",
        badge="",
        status=f"{len(runs)} runs",
        notice=unfinished,
        command="",
        facts=[],
        sections=[s for s in _sections(runs, names) if s.blocks],
    )


def _sections(runs: Sequence[RecordedRun], names: Sequence[str]) -> Iterator[Section]:
    yield Section("Runs", [_overview(runs, names)])
    yield Section("Final metrics", [_metrics(runs, names), Words(_CELLS)])
    yield Section("Different settings", facts.differences(runs, "config", names))
    yield Section("Different versions", facts.differences(runs, "versions", names))
    charts = {
        "Evaluations": _charts(runs, names, curves.evaluations, _measured),
        "Losses": _charts(runs, names, curves.losses, lambda key: (": ".join(key), "loss")),
        "Gradient norms": _charts(
            runs, names, curves.gradient_norms, lambda key: (": ".join(key), "gradient norm")
        ),
    }
    for title, pictures in charts.items():
        yield Section(title, _with_key(pictures, len(runs)))


def _overview(runs: Sequence[RecordedRun], names: Sequence[str]) -> Rows:
    rows = [
        [
            Cell(name, look=Look(place)),
            Cell(run.recipe),
            Cell(run.status, strong=not run.complete),
            Cell(str(run.config["seeds"]), number=True),
            Cell(facts.started(run)),
            Cell(facts.duration(run)),
            Cell(facts.command(run)),
        ]
        for place, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    titles = head("run", "recipe", "status", "seeds", "started", "duration", "to go on")
    if not any(row[-1].text for row in rows):
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    return Rows(titles, rows)


def _metrics(runs: Sequence[RecordedRun], names: Sequence[str]) -> Block:
    found = [by_key(run.metrics) for run in runs]
    keys = list(dict.fromkeys(key for one in found for key in one))
    if not keys:
        return Words("No stage is over that has final metrics.")
    rows = [
        [Cell(name, look=Look(place)), *(_cell(one.get(key)) for key in keys)]
        for place, (name, one) in enumerate(zip(names, found, strict=True))
    ]
    return Rows(head("run", *map(heading, keys), numbers=len(keys)), rows)


def _cell(of: dict[int, float] | None) -> Cell:
    if of is None:
        return Cell(DASH, number=True)
    around, count = spread(list(of.values())), len(of)
    words = f"{mean(of.values()):.4g}"
    words += "" if around is None else f" ± {around:.2g}"
    return Cell(f"{words} ({count})", number=True)


def _charts(
    runs: Sequence[RecordedRun],
    names: Sequence[str],
    entries: Entries,
    titles: Callable[[Key], tuple[str, str]],
) -> list[Picture]:
    lines: dict[Key, list[Line]] = {}
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        for key, seeds in gather(run, entries).items():
            lines.setdefault(key, []).append(Line(name, seeds, place))
    return [_chart(*titles(key), of, len(runs)) for key, of in lines.items()]


def _chart(title: str, label: str, lines: list[Line], runs: int) -> Picture:
    alone = f" ({lines[0].label} only)" if len(lines) == 1 else ""
    return line_chart(title + alone, label, lines, legend=runs <= _NAMED)


def _measured(key: Key) -> tuple[str, str]:
    stage, evaluation, metric = key
    measured: MetricKey = (stage, evaluation, metric)
    return heading(measured), metric


def _with_key(pictures: list[Picture], runs: int) -> list[Block]:
    if not pictures:
        return []
    said = f"{THICK} The tables above show which run has which colour and dashes."
    return [Words(said if runs > _NAMED else THICK), Cards(pictures)]
