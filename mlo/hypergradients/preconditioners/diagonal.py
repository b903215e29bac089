"""`Diagonal`: the inverse of an estimated diagonal of the Hessian."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch

from mlo.hypergradients.fields import check_number, check_whole
from mlo.hypergradients.preconditioners.base import Preconditioner, Preconditioning
from mlo.hypergradients.probes import Probes
from mlo.types import Tensors
from mlo.vectors import add_scaled, times, widened, zeros_like

if TYPE_CHECKING:
    from mlo.condition import Condition


@dataclasses.dataclass(frozen=True)
class Diagonal(Preconditioner):
    r"""M = |d| + damping, with d an estimate of the diagonal of H.

        d = (1 / probes) sum_s z_s * (H z_s),    the entries of z_s are 1 or -1 at random

    Unbiased, and exact where H is diagonal; off the diagonal an entry has the variance
    ``sum_{j != i} H_ij^2 / probes``. Entries below `floor` times the mean are raised to it, since
    one that is near zero by chance would spoil the rest.

    It helps where parameters have curvatures of different sizes, and does nothing for directions
    that mix them. Cost: `probes` products at each point, however many solves there are. Memory:
    one vector of the parameters' size. The signs come from a generator of its own.

    Source: Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a matrix", Applied
    Numerical Mathematics 57, 2007.

    Args:
        probes: products to estimate from.
        seed: of the signs.
        floor: smallest entry of M relative to their mean.
    """

    probes: int = 8
    seed: int = 0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        check_whole(self, "probes", least=1)
        check_whole(self, "seed", least=0)
        check_number(self, "floor", positive=True)

    def work(self, size: int) -> int:
        """One product a probe."""
        return self.probes

    def prepare(self, condition: Condition, damping: float) -> Preconditioning:
        """Estimate the diagonal at this condition."""
        draw = Probes(condition.params, self.seed)
        total = zeros_like(condition.params)
        for _ in range(self.probes):
            z = draw.signs()
            total = add_scaled(total, 1.0 / self.probes, times(z, condition.hvp(z)))
        scale = tuple(t.abs() + damping for t in total)
        return Preconditioning(inverse_of(scale, self.floor), self.probes)


def inverse_of(scale: Tensors, floor: float) -> functools.partial[Tensors]:
    """The division by `scale`, with entries below `floor` times its mean raised to that."""
    size = sum(s.numel() for s in scale)
    mean = torch.stack([widened(s).sum() for s in scale]).sum() / size
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    raised = (torch.maximum(s, (floor * mean).to(s.dtype)) for s in scale)
    return functools.partial(times, b=tuple(s.reciprocal() for s in raised))
