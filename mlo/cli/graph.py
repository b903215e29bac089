"""`mlo graph`: the problems of a recipe and what responds to what, drawn."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from mlo.cli.offered import OfferedGroup, Options
from mlo.cli.output import check_new_file, new_console, save, show
from mlo.configuration import RecipeConfig
from mlo.graph import DependencyGraph
from mlo.recipe import Recipe
from mlo.recipes import RECIPES


def draw(recipe: Recipe[Any], config: RecipeConfig, options: Options) -> None:
    """Draw the dependency graph of a recipe."""
    out = options["out"]
    if out is not None:
        check_new_file(out)
    drawing = drawn(
        recipe.engine(config, config.first_seed, options["stage"]).graph, options["format"]
    )
    console = new_console()
    if out is None:
        show(console, drawing.rstrip("\n"))
    else:
        save(console, out, drawing)


def drawn(graph: DependencyGraph, form: str) -> str:
    """A graph as `text`, `mermaid` or `svg`."""
    if form == "mermaid":
        return graph.to_mermaid()
    if form == "svg":
        from mlo.report import graph_svg

        return graph_svg(graph.plain())
    return str(graph)


def stage_option() -> click.Option:
    """The option that chooses a stage of a recipe."""
    return click.Option(
        ["--stage"], metavar="NAME", help="stage of the recipe (default: the one it shows)"
    )


def _options() -> list[click.Parameter]:
    return [
        stage_option(),
        click.Option(
            ["--format"],
            type=click.Choice(["text", "mermaid", "svg"]),
            default="text",
            help="text (the default), a Mermaid flow chart, or a picture",
        ),
        click.Option(
            ["--out"],
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=pathlib.Path),
            help="write to a new file (default: to the screen)",
        ),
    ]


graph = OfferedGroup(
    "graph",
    RECIPES,
    draw,
    options=_options,
    help="Draw the problems of a recipe and what responds to what.",
)
