"""The program `mlo`, which finds the command that is asked for and tells how it ended."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

import mlo
from mlo.cli.bench import bench
from mlo.cli.check import check
from mlo.cli.ending import FAILED, OK, ending
from mlo.cli.graph import graph
from mlo.cli.list import list_all
from mlo.cli.output import complain
from mlo.cli.report import report
from mlo.cli.run import run
from mlo.errors import ConfigurationError, listed, nearest
from mlo.interruptions import leaving_at_once

COMPLETE = "_MLO_COMPLETE"
"""Environment variable through which a shell asks for completions."""

_EPILOG = """\b
'mlo run RECIPE --help' lists the settings of a recipe.

\b
Exit codes:
  0    it worked
  1    the run or the check failed
  2    wrong command, option or configuration
  130  interrupted from the keyboard
  143  ended by SIGTERM

\b
Completion by the Tab key, for the present shell:
  eval "$(_MLO_COMPLETE=bash_source mlo)"
  eval "$(_MLO_COMPLETE=zsh_source mlo)"
  _MLO_COMPLETE=fish_source mlo | source
"""


class Program(click.Group):
    """The commands, in the order in which they are described."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names as they were added; click would sort them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command.

        Raises:
            ConfigurationError: there is none of that name.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise ConfigurationError(
                f"there is no command '{args[0]}'{nearest(args[0], self.commands)} "
                f"(commands: {listed(self.commands)}); 'mlo --help' describes them"
            )
        return super().resolve_command(ctx, args)


@click.group(
    "mlo",
    cls=Program,
    epilog=_EPILOG,
    invoke_without_command=True,
    subcommand_metavar="COMMAND ...",
    options_metavar="",
)
@click.version_option(mlo.__version__, prog_name="mlo", message="%(prog)s %(version)s")
@click.pass_context
def program(context: click.Context) -> None:
    """Multilevel optimization for PyTorch."""
    if context.invoked_subcommand is None:
        raise ConfigurationError(
            f"expected a command (commands: {listed(program.commands)}); "
            "'mlo --help' describes them"
        )


for _command in (list_all, run, graph, check, report, bench):
    program.add_command(_command)


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
    try:
        with leaving_at_once():
            code = _obey(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except BaseException as error:
        known = ending(error)
        if known is None:
            raise
        code, message = known
        if message:
            complain(message)
    return code


def _obey(words: list[str]) -> int:
    instruction = os.environ.get(COMPLETE)
    if instruction:
        return shell_complete(program, {}, "mlo", COMPLETE, instruction)
    with program.make_context("mlo", words) as context:
        program.invoke(context)
    return OK
