"""`mlo check`: the hypergradients of a recipe beside central differences, problem by problem."""

from __future__ import annotations

from typing import Any

import click

from mlo.cli.graph import stage_option
from mlo.cli.offered import OfferedGroup, Options
from mlo.cli.output import new_console, show, show_folded
from mlo.configuration import RecipeConfig
from mlo.errors import CheckError
from mlo.recipe import Recipe
from mlo.recipes import RECIPES


def compare(recipe: Recipe[Any], config: RecipeConfig, options: Options) -> None:
    """Compare the hypergradients of a recipe with central differences.

    Raises:
        CheckError: some do not agree; all are printed before.
    """
    from mlo.testing import check_program

    console = new_console()
    engine = recipe.engine(config, config.first_seed, options["stage"])
    if options["after"] > 0:
        engine.run(ticks=options["after"])
    found = check_program(
        engine, against=options["against"], tolerance=options["tolerance"], bias=options["bias"]
    )
    failed, count = 0, 0
    for result in found:
        count += 1
        wrong = isinstance(result, CheckError)
        failed += wrong
        (show_folded if wrong else show)(console, str(result))
    if not count:
        show(console, f"nothing to check: nobody answers to a problem of {recipe.name}")
    if failed:
        raise CheckError(f"{failed} of the checks of {recipe.name} failed")


class _NotNegative(click.ParamType[float]):
    """A number of at least 0, which NaN is not."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not number >= 0:
            self.fail(f"expected a number of at least 0, got '{value}'", param, ctx)
        return number


def _options() -> list[click.Parameter]:
    return [
        stage_option(),
        click.Option(
            ["--against"],
            type=click.Choice(["moves", "solution"]),
            help="compare with replayed moves or with the re-solved program "
            "(default: moves where the methods differentiate those)",
        ),
        click.Option(
            ["--after"], metavar="N", type=click.IntRange(0), default=0, help="make N ticks first"
        ),
        click.Option(
            ["--tolerance"],
            metavar="X",
            type=_NotNegative(),
            default=1e-5,
            help="largest relative error (default: 1e-5)",
        ),
        click.Option(
            ["--bias"],
            metavar="X",
            type=_NotNegative(),
            help="largest bias of the methods (default: the tolerance)",
        ),
    ]


check = OfferedGroup(
    "check",
    RECIPES,
    compare,
    options=_options,
    help="Compare the hypergradients of a recipe with central differences.",
)
