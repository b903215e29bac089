"""What installed packages offer through entry points, found by name and loaded one at a time."""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any

from mlo.errors import ConfigurationError


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
    except Exception as error:
        raise ConfigurationError(
            f"{kind} '{entry.name}': '{entry.value}' cannot be loaded "
            f"({type(error).__name__}: {error}); repair or uninstall the package that offers it"
        ) from error
