"""What a function reads: its argument names are its declaration."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlo.errors import DeclarationError

TICK = "tick"
"""The reserved argument name for the present tick."""


@dataclasses.dataclass(frozen=True)
class Reads:
    """The names that a function reads, and how to call it with them.

    Attributes:
        names: what it reads, in the order of its arguments.
        positional: whether they are passed by position (declared by `reads=`) or by name.
    """

    names: tuple[str, ...]
    positional: bool = False

    def call(self, function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
        """Call `function` with the values of the names that it reads."""
        if self.positional:
            return function(*(values[name] for name in self.names))
        return function(**{name: values[name] for name in self.names})


def declared_reads(
    function: Callable[..., Any],
    explicit: Sequence[str] | None = None,
    *,
    owner: str,
    problem: str | None = None,
) -> Reads:
    """Return what `function` reads.

    Arguments with defaults are the user's own. `functools.partial`, bound methods and callable
    objects work as they are.

    Args:
        function: the function whose argument names are the declaration.
        explicit: names given by hand, for a callable whose signature cannot be read.
        owner: what the function is, for messages.
        problem: the problem whose loss it is; only a loss may declare its reads by hand.

    Raises:
        DeclarationError: the function is not callable, its signature cannot be read, or it takes
            arguments that cannot be named.
    """
    by_hand = problem is not None
    if not callable(function):
        raise DeclarationError(
            f"{owner} must be a function whose argument names are what it reads, "
            f"got {type(function).__name__}",
            problem=problem,
        )
    if explicit is not None:
        return Reads(tuple(explicit), positional=True)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise DeclarationError(
            f"{owner} has a signature that cannot be read ({error}); wrap it in a function whose "
            "argument names are what it reads"
            + (", or name that by reads=('...', ...), in order" if by_hand else ""),
            problem=problem,
        ) from error
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise DeclarationError(
                f"{owner} takes '{parameter}', which has no name to read by; give every "
                f"argument a name{', or declare reads=(...)' if by_hand else ''}",
                problem=problem,
            )
    names = tuple(
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    )
    return Reads(names)
