"""Methods by name, for configurations and the command line. In Python one passes instances."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from mlo.errors import ConfigurationError, listed, nearest
from mlo.hypergradients.base import Hypergradient
from mlo.plugins import load, offered

GROUP = "mlo.hypergradients"
"""Entry-point group through which installed packages offer methods."""

_KIND = "hypergradient method"
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
        if known is not None and _place(known) != _place(method):
            raise ConfigurationError(
                f"hypergradient method '{name}' is taken by {known.__qualname__}; choose another"
            )
        _METHODS[name] = method
        return method

    return add


def _place(method: type) -> tuple[str, str]:
    """Where a class is written: a module that is loaded again registers the same one."""
    return method.__module__, method.__qualname__


def method_names() -> list[str]:
    """The names of all methods, registered here or offered by an installed package.

    Raises:
        ConfigurationError: a package offers a name that is taken.
    """
    return sorted({**_METHODS, **_offered()})


def find_method(name: str) -> type[Hypergradient]:
    """The class of the method called `name`.

    Raises:
        ConfigurationError: there is no such method, or what is offered under its name is none.
    """
    if name in _METHODS:
        return _METHODS[name]
    offers = _offered()
    if name not in offers:
        known = method_names()
        raise ConfigurationError(
            f"no hypergradient method is called '{name}'{nearest(name, known)} "
            f"(known: {listed(known)})"
        )
    method = load(offers[name], _KIND)
    if not (isinstance(method, type) and issubclass(method, Hypergradient)):
        raise ConfigurationError(
            f"{_KIND} '{name}': expected '{offers[name].value}' to be a subclass of "
            f"mlo.Hypergradient, found {method!r}; correct the package that offers it"
        )
    return method


def methods() -> dict[str, type[Hypergradient]]:
    """Name -> class of every method that can be loaded; warns of those that cannot."""
    found = {}
    for name in method_names():
        try:
            found[name] = find_method(name)
        except ConfigurationError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def make_method(name: str, **settings: Any) -> Hypergradient:
    """Return the method called `name` with the given settings.

    Raises:
        ConfigurationError: there is no such method, or it does not take these settings.
    """
    method = find_method(name)
    try:
        return method(**settings)
    except TypeError as error:
        raise ConfigurationError(f"{_KIND} '{name}': {error}") from error


def _offered() -> dict[str, EntryPoint]:
    """What packages offer; those that register their methods when imported may offer them too."""
    offers = offered(GROUP, _KIND)
    for name, entry in offers.items():
        taken = _METHODS.get(name)
        if taken is not None and entry.value != ":".join(_place(taken)):
            raise ConfigurationError(
                f"{_KIND} '{name}': the name is taken by {'.'.join(_place(taken))}, "
                f"and '{entry.value}' offers it too; uninstall the package that does"
            )
    return offers
