"""What is told about a run beside its numbers: status, times, machine, settings, versions."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core

from mlo.recipes import load_recipe
from mlo.recorded import RecordedRun
from mlo.report.blocks import DASH, Block, Cell, Rows, Words, head


def badge(run: RecordedRun) -> str:
    """The status in a word or two: completed, running, cut off, interrupted or failed."""
    status = str(run.state["status"])
    return "cut off" if status == "running" and not run.active else status


def notice(run: RecordedRun) -> list[str]:
    """Sentences for an unfinished run."""
    if run.complete:
        return []
    further = "Write the report again to see more." if badge(run) == "running" else "To go on:"
    return [f"{run.status[0].upper()}{run.status[1:]}.", further]


def command(run: RecordedRun) -> str:
    """The command that goes on with an unfinished run; nothing where there is none to be given."""
    if run.complete or badge(run) == "running":
        return ""
    return f"mlo run --resume {shlex.quote(str(run.path))}"


def facts(run: RecordedRun) -> list[tuple[str, str]]:
    """What about, when, how long, where, and with how many seeds."""
    versions = run.versions
    devices = versions.get("devices") or ["?"]
    processors = f"{versions.get('cpu_count', '?')} CPUs"
    about = [] if run.about is None else [("about", run.about)]
    return [
        *about,
        ("started", started(run)),
        ("duration", duration(run)),
        ("seeds", str(run.config["seeds"])),
        ("machine", ", ".join([str(versions.get("platform", "?")), processors, *devices])),
        ("folder", str(run.path)),
    ]


def started(run: RecordedRun) -> str:
    """When the run began."""
    try:
        return datetime.datetime.fromisoformat(run.state["started"]).strftime("%Y-%m-%d %H:%M %z")
    except (TypeError, ValueError):  # whatever else stands there
        return str(run.state["started"])


def duration(run: RecordedRun) -> str:
    """How long it took; of a run that has not ended the time of what was recorded."""
    if run.state.get("ended"):
        return _time(float(run.state["seconds"]))
    records = [r for stage in run.stages for r in (*stage.ticks, *stage.evaluations)]
    return f"{_time(sum(float(r['seconds']) for r in records))} of recorded ticks"


def settings(run: RecordedRun) -> list[Block]:
    """The configuration, with what differs from the defaults of the recipe in bold."""
    known = _defaults(run.recipe)
    rows = []
    for name, value in run.config.items():
        default, meaning = (known or {}).get(name, (value, ""))
        differs = value != default
        rows.append(
            [
                Cell(name, strong=differs),
                Cell(word(value), strong=differs),
                Cell(word(default) if known and name in known else DASH),
                Cell(meaning),
            ]
        )
    if known is None:
        said = f"The recipe {run.recipe} cannot be loaded here, so its defaults are not known."
        rows = [row[:2] for row in rows]
        return [Words(said), Rows(head("setting", "value"), rows)]
    said = "Settings that differ from the defaults of the recipe are in bold."
    return [Words(said), Rows(head("setting", "value", "default", "meaning"), rows)]


def differences(runs: Sequence[RecordedRun], read: str, names: Sequence[str]) -> list[Block]:
    """What differs between the configurations or versions of runs.

    Args:
        runs: the runs.
        read: "config" or "versions".
        names: of the runs.
    """
    of: list[Mapping[str, Any]] = [getattr(run, read) for run in runs]
    keys = dict.fromkeys(key for one in of for key in one)
    values = {key: [word(one[key]) if key in one else DASH for one in of] for key in keys}
    rows = [[Cell(key), *map(Cell, words)] for key, words in values.items() if len(set(words)) > 1]
    return [Rows(head("", *names), rows)] if rows else [Words("All runs agree.")]


def table(values: Mapping[str, Any]) -> Rows:
    """Names and values."""
    return Rows(head("what", "value"), [[Cell(k), Cell(word(v))] for k, v in values.items()])


def word(value: Any) -> str:
    """A plain value as the command line would take it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(word, value))
    return str(value)


def _defaults(recipe: str) -> dict[str, tuple[Any, str]] | None:
    """Setting -> (default, meaning); None where the recipe cannot be loaded."""
    try:
        fields = load_recipe(recipe).config.model_fields
        return {
            name: (
                DASH
                if field.is_required()
                else pydantic_core.to_jsonable_python(field.get_default(call_default_factory=True)),
                field.description or "",
            )
            for name, field in fields.items()
        }
    except Exception:  # a package of others may fail in any way, and the report tells of the run
        return None


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
