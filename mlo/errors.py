"""Every error the library raises on purpose.

MloError
 +-- DeclarationError        a program that cannot work, found while the engine is built
 |    +-- ReadError          a loss names something that is neither a problem nor a stream
 |    +-- GraphError         problems that do not answer to each other as declared
 |    +-- ParameterError     optimizer and module do not fit, or two problems share a parameter
 |    +-- MethodError        a hypergradient method that cannot serve where it was put
 |    +-- DeviceError        a device that is not there, or a module that will not move to it
 +-- EvaluationError         a loss, projection or evaluation that failed at run time
 |    +-- LossError          not a scalar, or it depends on none of the problem's parameters
 |    +-- ClosureError       a loss that uses what it was not handed
 |    +-- CheckpointingError activation checkpointing inside a loss
 |    +-- DoubleBackwardError an operation of the loss has no second derivative
 |    +-- ReplayError        a loss that gives another value when it is evaluated again
 |    +-- NonfiniteError     a NaN or an infinity in a loss, gradient, adjoint or parameter
 |    +-- SolveError         lower problems that diverge, or whose systems are not solved
 +-- StreamError             a data stream that is empty, exhausted or of the wrong kind
 +-- ConfigurationError      a recipe, option or name that does not exist
 |    +-- RunFolderError     a run folder that is taken, in use, or none
 +-- CarryError              a stage of a recipe hands on, or asks for, what cannot be handed on
 +-- CheckpointError         a checkpoint that cannot be written, is damaged, or of another program
 +-- DataError               a data set that is absent, damaged or too small
 +-- CheckError              a method or a hypergradient that is not what it should be
 |    +-- StationarityError  a lower problem that could not be solved for a check

HypergradientWarning          a hypergradient that was returned but cannot be relied on
ResumeWarning                 something that will not, or did not, go on exactly where it was
Interrupted                   (a KeyboardInterrupt) a run that a signal ended after a whole tick

Messages name the problem and the argument, what was expected, what was found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlo.incident import Incident


class MloError(Exception):
    """Base of all errors raised on purpose; `problem` names the culprit where there is one."""

    def __init__(self, message: str, *, problem: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class DeclarationError(MloError):
    """A program that cannot work as declared."""


class ReadError(DeclarationError):
    """A loss names something that is neither a problem nor a stream."""


class GraphError(DeclarationError):
    """The problems do not answer to each other as declared."""


class ParameterError(DeclarationError):
    """Optimizer and module do not fit together, or two problems share a parameter."""


class MethodError(DeclarationError):
    """A hypergradient method cannot serve where it was put."""


class EvaluationError(MloError):
    """A loss or another function of the user's failed at run time."""


class LossError(EvaluationError):
    """A loss is not a scalar tensor, or depends on none of its problem's parameters."""


class ClosureError(EvaluationError):
    """A loss uses parameters of a declared problem, or tensors to be differentiated, unnamed."""


class CheckpointingError(EvaluationError):
    """Activation checkpointing inside a loss would recompute with the wrong parameters."""


class DoubleBackwardError(EvaluationError):
    """An operation of the loss has no second derivative."""


class ReplayError(EvaluationError):
    """A loss gives another value when it is evaluated again on one batch and random state."""


class NonfiniteError(EvaluationError):
    """A NaN or an infinity appeared in a loss, a gradient, an adjoint or a parameter.

    Attributes:
        what: the message without what to do about it.
        incident: what is needed to make the move again; see `mlo.replay`.
    """

    what: str = ""
    incident: Incident | None = None


class SolveError(EvaluationError):
    """A lower problem diverges, or its linear systems are not solved, beyond what was allowed."""


class DeviceError(DeclarationError):
    """A device that cannot be used here, or a module that stayed elsewhere."""


class StreamError(MloError):
    """A data stream is empty, exhausted or of the wrong kind."""


class ConfigurationError(MloError):
    """A recipe, option or registered name does not exist or does not fit."""


class RunFolderError(ConfigurationError):
    """A run folder is taken, in use by another process, or none."""


class CarryError(MloError):
    """A stage of a recipe hands on what no file can hold, or asks for what none has handed on."""


class CheckpointError(MloError):
    """A checkpoint cannot be written, is damaged, or belongs to another program."""


class DataError(MloError):
    """A data set is absent, damaged or too small for what is asked of it."""


class CheckError(MloError):
    """A method, a loss or a hypergradient failed a check of `mlo.testing`."""


class StationarityError(CheckError):
    """A lower problem could not be solved to the residual that a check asks for."""


class HypergradientWarning(UserWarning):
    """A solve or a difference failed; the hypergradient returned cannot be relied on."""


class ResumeWarning(UserWarning):
    """Something will not go on exactly where it was when a run is resumed, or did not."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a run after a whole tick; the message says how to go on.

    Attributes:
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def described(error: BaseException) -> str:
    """An error's kind and message; the kind alone where there is no message."""
    return ": ".join([type(error).__name__, *([str(error)] if str(error) else [])])


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to `name`, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def listed(names: Iterable[str]) -> str:
    """Return the names quoted and separated by commas, or ``none``."""
    return ", ".join(f"'{name}'" for name in names) or "none"
