"""The command `mlo`: lists, runs and draws the recipes of the installed packages."""

from __future__ import annotations

import argparse
import io
import pathlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import rich.console
from rich.table import Table

import mlo
from mlo.configuration import RecipeConfig, configure
from mlo.errors import CheckError, ConfigurationError, DeclarationError, MloError, listed, nearest
from mlo.options import add_settings, parse_settings
from mlo.recipe import Recipe
from mlo.recipe_run import Job, carry_out
from mlo.recipes import find_recipes, load_recipe
from mlo.run_folder import RunFolder, new_folder

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
commands:
  list           the recipes and the hypergradient methods, one line each
  run RECIPE     run a recipe; its results go to the screen and to a new folder
  graph RECIPE   draw the problems of a recipe and what responds to what
  check RECIPE   compare the hypergradients of a recipe with central differences
'mlo run RECIPE --help' lists the settings of a recipe.

exit codes:
  0    it worked
  1    the run or the check failed
  2    wrong command, option or configuration
  130  interrupted from the keyboard
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `mlo`; those of the process without it.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the terminal has no Unicode, a question mark is better than a traceback.
        sys.stdout.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _COMMANDS.get(words[0]) if words else None
        if command is None:
            if words and not words[0].startswith("-"):
                raise ConfigurationError(
                    f"there is no command '{words[0]}'{nearest(words[0], _COMMANDS)} "
                    f"(commands: {listed(_COMMANDS)}); 'mlo --help' describes them"
                )
            _parser().parse_args(words)
        else:
            command(words[1:])
    except SystemExit as stop:  # argparse after --help or an error, or a recipe that gives up
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or OK
        _complain(str(stop.code))
        return FAILED
    except MloError as error:
        _complain(str(error))
        wrong = isinstance(error, ConfigurationError | DeclarationError)
        return USAGE if wrong else FAILED
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    return OK


def list_all(words: Sequence[str]) -> None:
    """Print the recipes and the hypergradient methods."""
    _subparser("list", "List the recipes and the hypergradient methods.").parse_args(words)
    from mlo.hypergradients.registry import find_method, method_names

    console = rich.console.Console()
    recipes = {name: _summary(lambda n: load_recipe(n).summary, name) for name in find_recipes()}
    kinds = {name: _summary(lambda n: find_method(n).__doc__, name) for name in method_names()}
    for heading, rows in (("recipes", recipes), ("hypergradient methods", kinds)):
        _print(console, heading)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, summary in rows.items() or {"none": "install a package that offers some"}.items():
            table.add_row(f"  {name}", summary)
        console.print(table, markup=False, highlight=False)


def run(words: Sequence[str]) -> None:
    """Run a recipe in a new folder and print its results."""
    parser = _subparser("run", "Run a recipe.")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=pathlib.Path,
        help="folder to create for the run (default: runs/RECIPE-TIME)",
    )
    parser.add_argument("--quiet", action="store_true", help="show the results, but no progress")
    recipe, config, options = _configured(parser, words)
    recipe.check(config)
    console = rich.console.Console()
    with (
        RunFolder.create(options.out) if options.out else new_folder("runs", recipe.name) as folder
    ):
        folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
        if not options.quiet:
            _print(console, f"{recipe.name}: writing to {folder.path}")
        metrics = carry_out(recipe, config, Job(console, folder, options.quiet))
    for table in recipe.tables(config, metrics):
        console.print(table)
    for note in (*recipe.notes(config), f"written to {folder.path}"):
        _print(console, _wrapped(note, console))


def graph(words: Sequence[str]) -> None:
    """Draw the dependency graph of a recipe."""
    parser = _subparser("graph", "Draw the dependency graph of a recipe.")
    parser.add_argument("--mermaid", action="store_true", help="as a Mermaid flow chart")
    recipe, config, options = _configured(parser, words)
    drawn = recipe.engine(config, config.first_seed).graph
    _print(rich.console.Console(), drawn.to_mermaid() if options.mermaid else str(drawn))


def check(words: Sequence[str]) -> None:
    """Compare the hypergradients of a recipe with central differences, problem by problem."""
    parser = _subparser("check", "Check the hypergradients of a recipe.")
    parser.add_argument(
        "--against",
        choices=("moves", "solution"),
        help="compare with replayed moves or with the re-solved program "
        "(default: moves where the methods differentiate those)",
    )
    parser.add_argument(
        "--after", type=_not_negative(int), default=0, metavar="N", help="make N ticks first"
    )
    parser.add_argument(
        "--tolerance",
        type=_not_negative(float),
        default=1e-5,
        metavar="X",
        help="largest relative error (default: 1e-5)",
    )
    parser.add_argument(
        "--bias",
        type=_not_negative(float),
        metavar="X",
        help="largest bias of the methods (default: the tolerance)",
    )
    recipe, config, options = _configured(parser, words)
    from mlo.testing import check_program

    console = rich.console.Console()
    engine = recipe.engine(config, config.first_seed)
    if options.after > 0:
        engine.run(ticks=options.after)
    found = check_program(
        engine, against=options.against, tolerance=options.tolerance, bias=options.bias
    )
    failed, count = 0, 0
    for result in found:
        count += 1
        wrong = isinstance(result, CheckError)
        failed += wrong
        _print(console, _wrapped(str(result), console) if wrong else str(result))
    if not count:
        _print(console, f"nothing to check: nobody answers to a problem of {recipe.name}")
    if failed:
        raise CheckError(f"{failed} of the checks of {recipe.name} failed")


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "list": list_all,
    "run": run,
    "graph": graph,
    "check": check,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlo",
        description="Multilevel optimization for PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlo {mlo.__version__}")
    parser.add_argument("command", choices=tuple(_COMMANDS), help="what to do; see below")
    return parser


def _not_negative(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A converter for `argparse` that refuses numbers below 0, and what is none."""

    def convert(word: str) -> float:
        value = kind(word)
        if not value >= 0:
            raise ValueError(word)
        return value

    convert.__name__ = f"{kind.__name__} of at least 0"  # argparse puts it into its message
    return convert


def _subparser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"mlo {command}", description=description, allow_abbrev=False
    )


def _configured(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[Recipe[Any], RecipeConfig, argparse.Namespace]:
    """Read the words after a command that takes a recipe."""
    if not words or words[0].startswith("-"):
        # There is no recipe yet, so this prints the help or says what is missing.
        parser.add_argument("recipe", help="a name that 'mlo list' shows")
        parser.epilog = "'... RECIPE --help' lists the settings of the recipe as well."
        parser.parse_known_args(words)
        parser.error("the recipe comes first, before the options")
    recipe = load_recipe(words[0])
    parser.prog = f"{parser.prog} {recipe.name}"
    parser.usage = f"{parser.prog} [--OPTION VALUE ...]"
    parser.description = recipe.summary
    add_settings(parser, recipe.config)
    options, settings = parse_settings(parser, words[1:])
    return recipe, configure(recipe.config, settings, title=recipe.name), options


def _summary(describe: Callable[[str], str | None], name: str) -> str:
    try:
        return _first_line(describe(name))
    except ConfigurationError as error:  # one damaged package must not hide the others
        return f"(cannot be loaded: {_first_line(str(error))})"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _print(console: rich.console.Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _wrapped(text: str, console: rich.console.Console) -> str:
    return "\n".join(
        textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
    )


def _complain(message: str) -> None:
    console = rich.console.Console(stderr=True)
    console.print(f"mlo: {message}", markup=False, highlight=False, emoji=False)
