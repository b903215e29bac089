"""Methods by name, for configurations and the command line. In Python one passes instances."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar

from mlo.errors import ConfigurationError, listed, nearest
from mlo.hypergradients.base import Hypergradient

GROUP = "mlo.hypergradients"
"""Entry-point group through which installed packages offer methods."""

_METHODS: dict[str, type[Hypergradient]] = {}
M = TypeVar("M", bound=type[Hypergradient])


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method selectable by `name`.

    Raises:
        ConfigurationError: the class is no `Hypergradient`, or another class has the name.
    """

    def add(method: M) -> M:
        if not (isinstance(method, type) and issubclass(method, Hypergradient)):
            raise ConfigurationError(
                f"register({name!r}) decorates a subclass of mlo.Hypergradient, got {method!r}"
            )
        known = _METHODS.get(name)
        if known is not None and known.__qualname__ != method.__qualname__:
            raise ConfigurationError(
                f"hypergradient method '{name}' is taken by {known.__qualname__}; choose another"
            )
        _METHODS[name] = method
        return method

    return add


def methods() -> dict[str, type[Hypergradient]]:
    """Name -> class of every method registered here or offered by an installed package."""
    offered = {}
    for entry in metadata.entry_points(group=GROUP):
        if entry.name not in _METHODS:
            offered[entry.name] = entry.load()
    return {**_METHODS, **offered}


def make_method(name: str, **settings: Any) -> Hypergradient:
    """Return the method called `name` with the given settings.

    Raises:
        ConfigurationError: there is no such method, or it does not take these settings.
    """
    known = methods()
    if name not in known:
        raise ConfigurationError(
            f"no hypergradient method is called '{name}'{nearest(name, known)} "
            f"(known: {listed(sorted(known))})"
        )
    try:
        return known[name](**settings)
    except TypeError as error:
        raise ConfigurationError(f"hypergradient method '{name}': {error}") from error
