"""``python -m benchmarks.audit``: make environments, ask all libraries, write results and page."""

from __future__ import annotations

import json
import pathlib
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks.audit import picture, rendering
from benchmarks.audit.cases import cases
from benchmarks.audit.environments import LIBRARIES
from benchmarks.audit.problems import SEED
from benchmarks.audit.running import audit
from mlo.files import json_text, write_text
from mlo.versions import environment

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/audit.json"
PAGE = ROOT / "docs/audit.md"
PICTURE = ROOT / "docs/images/audit.svg"
ENVIRONMENTS = pathlib.Path(__file__).parent / ".environments"

FILE = click.Path(dir_okay=False, path_type=pathlib.Path)
FOLDER = click.Path(file_okay=False, path_type=pathlib.Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(list(LIBRARIES)), help="ask these alone")
@click.option("--out", type=FILE, default=RESULTS, show_default=True, help="file of the results")
@click.option("--replace", is_flag=True, help="rows of these libraries in a file that exists")
@click.option("--environments", type=FOLDER, default=ENVIRONMENTS, help="where to install")
@click.option("--page", "page_only", is_flag=True, help="ask nobody, write the page again")
def main(
    only: tuple[str, ...],
    out: pathlib.Path,
    replace: bool,
    environments: pathlib.Path,
    page_only: bool,
) -> None:
    """Ask every library the same questions with known answers.

    Each has an environment of its own. A file that exists is not touched without --replace.
    Page and picture follow the results in benchmarks/results/audit.json.
    """
    console = Console()
    if page_only:
        write_page()
        return
    if out.exists() and not replace:
        raise click.ClickException(f"{out} exists; give --replace, or another --out")
    results = _asked(console, only or tuple(LIBRARIES), environments)
    if out.exists():
        results = merged(json.loads(out.read_text("utf-8")), results)
    write_text(out, as_text(results))
    console.print(f"wrote {out}")
    if out.resolve() == RESULTS:
        write_page()
        console.print(f"wrote {PAGE} and {PICTURE}")


def _asked(console: Console, names: tuple[str, ...], folder: pathlib.Path) -> dict[str, Any]:
    """All libraries of these names, with what is being done shown."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20))
    counts = (MofNCompleteColumn(), TimeElapsedColumn())
    everything = cases()
    libraries: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    with Progress(*columns, *counts, console=console) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            own = [case for case in everything if case.library == name]
            tell = partial(_tell, progress, task, name)
            about, answers = audit(name, own, folder, tell)
            failed = sum("error" in row for row in answers)
            progress.console.print(f"{name}: {len(answers)} answers, {failed} of them exceptions")
            libraries[name] = about
            rows += answers
            progress.advance(task)
    return {
        "benchmark": "audit",
        "environment": environment(),
        "seed": SEED,
        "libraries": libraries,
        "rows": rows,
    }


def _tell(progress: Progress, task: TaskID, name: str, what: str) -> None:
    progress.update(task, description=f"{name}: {what}")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old results with those of the new libraries in place of theirs, in the usual order."""
    libraries = {**old["libraries"], **new["libraries"]}
    kept = [row for row in old["rows"] if row["library"] not in new["libraries"]]
    rows = sorted([*kept, *new["rows"]], key=lambda row: list(LIBRARIES).index(row["library"]))
    ordered = {name: libraries[name] for name in LIBRARIES if name in libraries}
    return {**new, "libraries": ordered, "rows": rows}


def as_text(results: dict[str, Any]) -> str:
    """JSON with a row on each line."""
    head = json_text({**results, "rows": []}, indent=1)
    rows = ",\n  ".join(json_text(row) for row in results["rows"])
    return head.replace('"rows": []', f'"rows": [\n  {rows}\n ]') + "\n"


def write_page() -> None:
    """Page and picture from the results."""
    results = json.loads(RESULTS.read_text("utf-8"))
    write_text(PAGE, rendering.page(PAGE.read_text("utf-8"), results))
    write_text(PICTURE, picture.svg(results))


if __name__ == "__main__":
    main()
