"""`mlo list`: what is there to be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
import rich.console
from rich.table import Table

from mlo.benchmark import BENCHMARKS
from mlo.cli.offered import damaged, summary
from mlo.cli.output import first_line, new_console, show
from mlo.errors import ConfigurationError
from mlo.recipes import RECIPES


@click.command("list", options_metavar="")
def list_all() -> None:
    """List recipes, hypergradient methods and benchmarks."""
    from mlo.hypergradients.registry import method_names

    console = new_console()
    show_offers(console, "recipes", RECIPES.find, _recipe)
    show_offers(console, "hypergradient methods", method_names, _method)
    show_offers(console, "benchmarks", BENCHMARKS.find, lambda name: summary(BENCHMARKS, name))


def show_offers(
    console: rich.console.Console,
    heading: str,
    find: Callable[[], Iterable[str]],
    describe: Callable[[str], str],
) -> None:
    """Print a heading, and a row for each name that is found."""
    show(console, heading)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in _rows(find, describe).items():
        table.add_row(f"  {name}", text)
    console.print(table, markup=False, highlight=False)


def _rows(find: Callable[[], Iterable[str]], describe: Callable[[str], str]) -> dict[str, str]:
    try:
        found = {name: describe(name) for name in find()}
    except ConfigurationError as error:  # two packages offer one name
        return {"none": damaged(error)}
    return found or {"none": "install a package that offers some"}


def _recipe(name: str) -> str:
    text = summary(RECIPES, name)
    try:
        presets = RECIPES.load(name).presets
    except ConfigurationError:  # its summary says so
        return text
    return f"{text} (presets: {', '.join(presets)})" if presets else text


def _method(name: str) -> str:
    from mlo.hypergradients.registry import find_method

    try:
        return first_line(find_method(name).__doc__)
    except ConfigurationError as error:
        return damaged(error)
