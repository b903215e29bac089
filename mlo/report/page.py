"""Pages as files of HTML that need nothing else, not even a network."""

from __future__ import annotations

import importlib.resources
import itertools
import pathlib
import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import jinja2
from markupsafe import Markup

from mlo.errors import ConfigurationError, RunFolderError
from mlo.files import write_text
from mlo.recorded import RecordedRun
from mlo.report.blocks import Block, Own, Page
from mlo.report.chart import Picture
from mlo.report.comparison_page import comparison_page
from mlo.report.run_page import run_page
from mlo.report.style import styled
from mlo.report.svg import inline, save

MARKER = '<meta name="generator" content="mlo report">'
"""In every page; a file without it is none, and is not overwritten."""


def write_report(runs: Sequence[RecordedRun], path: pathlib.Path) -> None:
    """Write a page about one run, or about how several compare.

    Args:
        runs: what `mlo.recorded.read_run` returned, finished or not, of one recipe or of several.
        path: the file, in a folder that exists; an older report there is replaced.

    Raises:
        ConfigurationError: there is no run.
        RunFolderError: `path` is something else than a report, or cannot be written.
        DataError: matplotlib is not installed.
    """
    if not runs:
        raise ConfigurationError("report: expected at least one run, got none; give its folder")
    path = pathlib.Path(path)
    _refuse_others(path)
    page = run_page(runs[0]) if len(runs) == 1 else comparison_page(runs)
    text = render(page)
    write_text(path, text)


def render(page: Page) -> str:
    """Draw a page as HTML.

    Raises:
        DataError: matplotlib is not installed.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    count = itertools.count(1)

    def draw(picture: Picture) -> Markup:
        return Markup(inline(save(picture.draw()), picture.title, f"s{next(count)}-"))

    def own(picture: Own) -> Markup:
        try:
            return Markup(inline(picture.svg, picture.title, f"s{next(count)}-", themed=False))
        except ET.ParseError:
            return Markup("<p>The picture is damaged.</p>")

    with styled():
        return environment.from_string(_resource("page.html")).render(
            page=page,
            css=Markup(_resource("page.css")),
            marker=Markup(MARKER),
            draw=draw,
            own=own,
            anchor=anchor,
            grouped=_grouped,
        )


def anchor(title: str) -> str:
    """The id of a section."""
    return re.sub(r"\W+", "-", title.lower())


def _grouped(blocks: Sequence[Block]) -> list[tuple[str, list[Block]]]:
    """Neighbours of one kind together."""
    kinds = {"own": "cards", "graph": "graphs"}
    groups = itertools.groupby(blocks, lambda block: kinds.get(block.kind) or block.kind)
    return [(kind, list(group)) for kind, group in groups]


def _refuse_others(path: pathlib.Path) -> None:
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = MARKER in file.read(4096)
    except OSError as error:
        raise RunFolderError(
            f"report: cannot write '{path}': {error.strerror}; choose another name"
        ) from error
    if not found:
        raise RunFolderError(
            f"report: expected a new file or an older report, found another file at '{path}'; "
            "choose another name, or move it away"
        )


def _resource(name: str) -> str:
    return importlib.resources.files("mlo.report").joinpath(name).read_text(encoding="utf-8")
