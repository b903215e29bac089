"""`mlo report`: a page of one run, or of several side by side."""

from __future__ import annotations

import pathlib

import click

from mlo.cli.output import check_folder_of, new_console, show
from mlo.recorded import read_run


@click.command("report", options_metavar="[--out FILE]")
@click.argument(
    "folders",
    metavar="DIR...",
    nargs=-1,
    required=True,
    type=click.Path(file_okay=False, path_type=pathlib.Path),
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="the page (default: DIR/report.html; comparison.html for several); an older one is "
    "replaced",
)
def report(folders: tuple[pathlib.Path, ...], out: pathlib.Path | None) -> None:
    """Make a page of a run, or of several to compare them."""
    runs = [read_run(folder) for folder in folders]
    if out is None:
        one = len(folders) == 1
        out = folders[0] / "report.html" if one else pathlib.Path("comparison.html")
    check_folder_of(out)
    from mlo.report import write_report

    write_report(runs, out)
    console = new_console()
    show(console, f"written to {out}")
    for folder, run in zip(folders, runs, strict=True):
        if not run.complete:
            show(console, f"{folder}: {run.status}")
