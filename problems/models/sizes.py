"""What networks ask of the sizes that they are built with."""

from __future__ import annotations

from collections.abc import Collection

from mlo.errors import ConfigurationError


def check_positive(**sizes: int) -> None:
    """Refuse a size that is not positive, by a ConfigurationError that names it."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigurationError(
                f"{name}: expected at least 1, found {size}. A layer needs a positive size."
            )


def check_classes(classes: int) -> None:
    """Refuse fewer than two classes, by a ConfigurationError."""
    if classes < 2:
        raise ConfigurationError(
            f"classes: expected at least 2, found {classes}. A classifier needs a choice."
        )


def check_dropout(dropout: float) -> None:
    """Refuse a probability of dropout outside [0, 1), by a ConfigurationError."""
    if not 0.0 <= dropout < 1.0:
        raise ConfigurationError(
            f"dropout: expected a probability in [0, 1), found {dropout}. At 1 nothing is left."
        )


def check_known(name: str, value: object, known: Collection[object]) -> None:
    """Refuse a value that is not among the known ones, by a ConfigurationError."""
    if value not in known:
        raise ConfigurationError(
            f"{name}: expected one of {', '.join(map(repr, known))}, found {value!r}. "
            "Choose one of them."
        )
