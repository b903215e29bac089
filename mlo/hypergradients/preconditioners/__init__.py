"""Preconditioners of the iterative methods; configurations name them."""

from __future__ import annotations

from mlo.errors import ConfigurationError, listed, nearest
from mlo.hypergradients.preconditioners.base import (
    Apply,
    Preconditioner,
    Preconditioning,
    identity,
)
from mlo.hypergradients.preconditioners.diagonal import Diagonal
from mlo.hypergradients.preconditioners.nystrom import NystromSketch
from mlo.hypergradients.preconditioners.optimizer import OptimizerDiagonal

SHIPPED: dict[str, type[Preconditioner]] = {
    "diagonal": Diagonal,
    "nystrom": NystromSketch,
    "optimizer": OptimizerDiagonal,
}
"""Name -> preconditioner with its default settings."""


def find_preconditioner(chosen: str | Preconditioner | None) -> Preconditioner | None:
    """Return the preconditioner itself where it is named.

    Raises:
        ConfigurationError: it is neither a preconditioner nor the name of one.
    """
    if chosen is None or isinstance(chosen, Preconditioner):
        return chosen
    if isinstance(chosen, str) and chosen in SHIPPED:
        return SHIPPED[chosen]()
    near = nearest(chosen, SHIPPED) if isinstance(chosen, str) else ""
    raise ConfigurationError(
        f"preconditioner={chosen!r} is no preconditioner{near}; give one of {listed(SHIPPED)}, an "
        "instance such as Diagonal(probes=4), or None"
    )


__all__ = [
    "SHIPPED",
    "Apply",
    "Diagonal",
    "NystromSketch",
    "OptimizerDiagonal",
    "Preconditioner",
    "Preconditioning",
    "find_preconditioner",
    "identity",
]
