"""Checks of the settings of a method, shared by all."""

from __future__ import annotations

import math

from mlo.errors import ConfigurationError


def check_whole(method: object, name: str, *, least: int) -> None:
    """The setting called `name` is a whole number of at least `least`.

    Raises:
        ConfigurationError: it is not.
    """
    value = getattr(method, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{type(method).__name__}({name}=...) must be a whole number of at least {least}, "
            f"got {value!r}"
        )


def check_flag(method: object, name: str) -> None:
    """The setting called `name` is true or false.

    Raises:
        ConfigurationError: it is not.
    """
    value = getattr(method, name)
    if not isinstance(value, bool):
        raise ConfigurationError(
            f"{type(method).__name__}({name}=...) must be True or False, got {value!r}"
        )


def check_number(method: object, name: str, *, positive: bool = False) -> None:
    """The setting called `name` is a finite number, above 0 or at least not below it.

    Raises:
        ConfigurationError: it is not.
    """
    value = getattr(method, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ConfigurationError(
            f"{type(method).__name__}({name}=...) must be a "
            f"{'positive' if positive else 'non-negative'} number, got {value!r}"
        )
