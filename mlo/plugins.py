"""What installed packages offer through entry points, found by name and loaded one at a time."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any, Generic, Protocol, TypeVar

from mlo.errors import ConfigurationError, listed, nearest


class Named(Protocol):
    """Something that is offered under its own name."""

    @property
    def name(self) -> str:
        """What the user types."""


NamedT = TypeVar("NamedT", bound=Named)


@dataclasses.dataclass(frozen=True)
class Catalogue(Generic[NamedT]):
    """The objects of one kind that packages offer, each under its own name.

    Attributes:
        group: the entry-point group.
        kind: the class that they are instances of.
        noun: what one of them is called, for messages.
    """

    group: str
    kind: type[NamedT]
    noun: str

    def find(self) -> dict[str, EntryPoint]:
        """Find all by name, without importing any.

        Raises:
            ConfigurationError: two packages offer the same name.
        """
        return offered(self.group, self.noun)

    def load(self, name: str) -> NamedT:
        """Import one.

        Raises:
            ConfigurationError: there is none of that name, or what is there is something else.
        """
        known = self.find()
        if name not in known:
            raise ConfigurationError(
                f"{self.noun}: expected one of {listed(known)}, got '{name}'{nearest(name, known)} "
                f"({self.noun}s come with installed packages; 'mlo list' shows them)"
            )
        found = load(known[name], self.noun)
        if not isinstance(found, self.kind) or found.name != name:
            other = isinstance(found, self.kind)
            what = f"the {self.noun} '{found.name}'" if other else repr(found)
            raise ConfigurationError(
                f"{self.noun} '{name}': expected '{known[name].value}' to be an instance of "
                f"{self.kind.__module__}.{self.kind.__qualname__} with this name, found {what}; "
                "correct the package that offers it"
            )
        return found


def offered(group: str, kind: str) -> dict[str, EntryPoint]:
    """Find by name what packages offer in a group, without importing any.

    Args:
        group: the entry-point group.
        kind: what is offered, for messages.

    Raises:
        ConfigurationError: two packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in metadata.entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigurationError(
                f"{kind} '{entry.name}': expected one package to offer it, found "
                f"'{other.value}' and '{entry.value}'; uninstall one of them"
            )
    return dict(sorted(found.items()))


def load(entry: EntryPoint, kind: str) -> Any:
    """Import what an entry point names.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{kind} '{entry.name}': '{entry.value}' cannot be loaded "
            f"({type(error).__name__}: {error}); repair or uninstall the package that offers it"
        ) from error
