"""The seam for preconditioners: an approximate inverse of the Hessian that is cheap to apply."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from mlo.types import Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition

Apply: TypeAlias = Callable[[Tensors], Tensors]
"""v -> M^{-1} v, symmetric and positive definite."""


@dataclasses.dataclass(frozen=True)
class Preconditioning:
    """M^{-1} at one point.

    Attributes:
        apply: v -> M^{-1} v, linear, symmetric and positive definite. It refers to tensors and not
            to the condition, which may refer to it.
        products: Hessian products taken to make it.
    """

    apply: Apply
    products: int = 0


class Preconditioner(abc.ABC):
    """An M near H + damping I, made once at a point for all solves there.

    A preconditioner is a frozen dataclass of its settings. It changes how fast an iterative method
    gets to its answer, and not the answer: any symmetric positive definite M is right.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What the method must be offered for it, as in `Hypergradient.needs`."""

    symmetric: ClassVar[bool] = False
    """Whether `prepare` takes dg/dw to be symmetric."""

    def work(self, size: int) -> int:
        """Products that `prepare` takes at most for `size` parameters. Default: none."""
        return 0

    @abc.abstractmethod
    def prepare(self, condition: Condition, damping: float) -> Preconditioning:
        """Return M^{-1} for ``H + damping I`` at this condition."""


def identity(v: Tensors) -> Tensors:
    """M = I."""
    return v
