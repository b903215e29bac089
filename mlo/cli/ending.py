"""How a command ended: its exit code, and what is said about it on the error stream."""

from __future__ import annotations

import click

from mlo.errors import ConfigurationError, DeclarationError, Interrupted, MloError, nearest

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

Ending = tuple[int, str]
"""An exit code, and a message; none where it is empty."""


def ending(error: BaseException) -> Ending | None:
    """Tell an exception that ends a command from one that is a mistake in the code.

    Args:
        error: what a command raised.

    Returns:
        Exit code and message; None for an exception of an unknown kind.
    """
    if isinstance(error, click.exceptions.Exit):  # after --help and --version
        return error.exit_code, ""
    if isinstance(error, SystemExit):  # a recipe that gives up, or a pipe without a reader
        return _of_exit(error)
    if isinstance(error, click.UsageError):
        return USAGE, _sentence(error)
    if isinstance(error, MloError):
        wrong = isinstance(error, ConfigurationError | DeclarationError)
        return USAGE if wrong else FAILED, str(error)
    if isinstance(error, KeyboardInterrupt):
        return _of_interrupt(error)
    return None


def _of_interrupt(error: KeyboardInterrupt) -> Ending:
    if isinstance(error, Interrupted):
        # What shells and batch systems expect of a process that a signal has ended.
        return 128 + error.signal, str(error)
    return INTERRUPTED, "interrupted"


def _of_exit(stop: SystemExit) -> Ending:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or FAILED, ""  # a recipe that leaves has not done its work
    return FAILED, str(stop.code)


def _sentence(error: click.UsageError) -> str:
    """What click has to say, in the words of this library."""
    context = error.ctx
    if context is None:
        return error.format_message()
    if isinstance(error, click.NoSuchOption):
        known = [flag for param in context.command.get_params(context) for flag in param.opts]
        return (
            f"{context.command_path}: there is no option '{error.option_name}'"
            f"{nearest(error.option_name, known)}; --help lists all"
        )
    message = error.format_message().rstrip(".")
    return f"{context.command_path}: {message[:1].lower()}{message[1:]}; see --help"
