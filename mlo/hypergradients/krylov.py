"""What conjugate gradients and minimal residuals share: settings, and guarded divisions."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mlo.hypergradients.fields import check_flag, check_number, check_whole
from mlo.hypergradients.iterative import Iterative
from mlo.hypergradients.preconditioners import Preconditioner, find_preconditioner
from mlo.types import Tensors
from mlo.vectors import rounding


@dataclasses.dataclass(frozen=True)
class Krylov(Iterative):
    """A solver on ``(H + damping I) u = v`` that takes one product an iteration.

    On a CPU it stops as soon as the tolerance is met. On an accelerator that would mean waiting
    for it in every iteration, so there all `iterations` are launched, and those after convergence
    change nothing.

    Args:
        iterations: upper bound on the iterations.
        tolerance: relative residual at which it stops.
        damping: added to the diagonal of H.
        preconditioner: a positive definite M near H + damping I: `"diagonal"`, `"nystrom"`,
            `"optimizer"`, an instance such as `Diagonal(probes=4)`, or `None` for none.
        warm_start: begin from the adjoint that was found last.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    iterations: int = 20
    tolerance: float = 1e-6
    damping: float = 0.0
    preconditioner: str | Preconditioner | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_whole(self, "iterations", least=1)
        check_number(self, "tolerance")
        check_number(self, "damping")
        check_flag(self, "warm_start")
        find_preconditioner(self.preconditioner)

    def work(self, size: int) -> int:
        """One product an iteration, and one at the end."""
        return self.iterations + self.overhead(size)


def idle(active: Tensor) -> bool:
    """Whether there is nothing left to do, where asking does not wait for a device."""
    return active.device.type == "cpu" and not active


def ratio(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """``a / b`` where that is valid, else 0; never divides where it is not."""
    safe = torch.where(valid, b, torch.ones_like(b))
    return torch.where(valid, a / safe, torch.zeros_like(a))


def lost_in_rounding(like: Tensors) -> float:
    """The part of |H| below which no digit of a curvature is left.

    Ten units of rounding, but never more than 1e-5: half precision would bear no condition number.
    """
    return min(10.0 * rounding(like), 1e-5)
