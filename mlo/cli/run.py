"""`mlo run`: a recipe in a folder of its own, or the rest of a run that was cut off."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from typing import Any

import click

from mlo.cli.offered import OfferedGroup, Options
from mlo.cli.output import new_console, show, show_folded
from mlo.cli.resume import resumed
from mlo.configuration import RecipeConfig, check_written
from mlo.errors import ConfigurationError, DataError
from mlo.recipe import Recipe
from mlo.recipe_run import Job, Watch, carry_out
from mlo.recipes import RECIPES
from mlo.recorded import read_run
from mlo.run_folder import RunFolder, new_folder


class RunGroup(OfferedGroup):
    """`mlo run RECIPE`, and `mlo run --resume DIR` without a recipe."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what comes before the recipe.

        Raises:
            ConfigurationError: there is an option that belongs behind it, or none of which may be
                given, since a run is resumed.
        """
        words = list(args)  # click takes the words out as it reads them
        try:
            return super().parse_args(ctx, args)
        except ConfigurationError as error:
            if any(word.partition("=")[0] == "--resume" for word in words):
                raise ConfigurationError(_ALONE) from error
            raise


_ALONE = (
    "--resume: recipe and settings are those that the run began with; leave out all but --quiet, "
    "--tensorboard, --save-every and --other-versions, as in 'mlo run --resume DIR'"
)


def run_new(recipe: Recipe[Any], config: RecipeConfig, options: Options) -> None:
    """Run a recipe in a new folder and print its results."""
    check_written(recipe.config, config)
    recipe.check(config)
    job = _job(options)
    out = options["out"]
    with RunFolder.create(out) if out else new_folder("runs", recipe.name) as folder:
        folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
        if not job.quiet:
            show(job.console, f"{recipe.name}: writing to {folder.path}")
        finish(recipe, config, dataclasses.replace(job, folder=folder), folder)


def run_on(path: pathlib.Path, options: Options) -> None:
    """Go on with a run that was cut off, and print its results."""
    job = _job(options)
    with resumed(path) as (recipe, config, folder, changes):
        for change in changes:
            show_folded(job.console, change)
        if not job.quiet:
            show(job.console, f"{recipe.name}: going on in {folder.path}")
        finish(recipe, config, dataclasses.replace(job, folder=folder), folder)


def finish(recipe: Recipe[Any], config: RecipeConfig, job: Job, folder: RunFolder) -> None:
    """Run what is not over yet, and print the results of all."""
    metrics = carry_out(recipe, config, job)
    for table in recipe.tables(config, metrics):
        job.console.print(table)
    path = shlex.quote(str(folder.path))
    for note in (
        *recipe.notes(config),
        f"took {folder.state['seconds']:.1f} s",
        _pictures(recipe, config, folder),
        f"written to {folder.path}; 'mlo report {path}' makes a page of it",
    ):
        show_folded(job.console, note)


def _pictures(recipe: Recipe[Any], config: RecipeConfig, folder: RunFolder) -> str:
    """Draw the run into its folder; say that it was done, or what is missing for it."""
    from mlo.report import write_plots

    recorded = read_run(folder.path)
    try:
        write_plots(recorded, recipe.plots(config, recorded), folder)
    except DataError as error:
        return f"no pictures were drawn: {error}"
    return f"pictures are in {folder.path / 'plots'}"


def _job(options: Options) -> Job:
    """What the options say of how to run; without a folder yet."""
    return Job(
        new_console(),
        quiet=options["quiet"],
        watch=_watch() if options["tensorboard"] else None,
        save_every=options["save_every"],
        other_versions=options.get("other_versions", False),
    )


def _watch() -> Watch:
    # Imported before there is a folder, since the library may not be installed.
    from mlo.callbacks import TensorBoard

    return lambda place: [TensorBoard(place.events, resume=True)]


def _common() -> list[click.Parameter]:
    return [
        click.Option(["--quiet"], is_flag=True, help="show the results, but no progress"),
        click.Option(
            ["--tensorboard"], is_flag=True, help="write event files for TensorBoard as well"
        ),
        click.Option(
            ["--save-every"],
            metavar="TICKS",
            type=click.IntRange(min=1),
            help="ticks between two saved states (default: one about every 30 seconds)",
        ),
    ]


def _options() -> list[click.Parameter]:
    out = click.Option(
        ["--out"],
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=pathlib.Path),
        help="folder to create for the run (default: runs/RECIPE-TIME)",
    )
    refused = click.Option(["--resume"], hidden=True, is_eager=True, callback=_refuse_resume)
    return [out, *_common(), refused]


def _refuse_resume(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None and not context.resilient_parsing:
        raise ConfigurationError(_ALONE)


def _before(resume: pathlib.Path | None, **options: Any) -> None:
    """Resume a run where that is asked for, without a recipe."""
    context = click.get_current_context()
    if context.invoked_subcommand is None and resume is not None:
        run_on(resume, options)
    elif context.invoked_subcommand is None:
        run.refuse_alone()
    elif resume is not None:
        raise ConfigurationError(_ALONE)
    elif any(options.values()):
        raise ConfigurationError("mlo run: the recipe comes first, before the options")


run = RunGroup(
    "run",
    RECIPES,
    run_new,
    options=_options,
    help="Run a recipe; its results go to the screen and to a new folder.",
    callback=_before,
    params=[
        click.Option(
            ["--resume"],
            metavar="DIR",
            type=click.Path(file_okay=False, path_type=pathlib.Path),
            help="go on with a run that was cut off, without naming a recipe",
        ),
        *_common(),
        click.Option(
            ["--other-versions"],
            is_flag=True,
            help="go on although the software has other versions now, with other last digits",
        ),
    ],
)
