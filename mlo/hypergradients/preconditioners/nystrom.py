"""`NystromSketch`: the inverse of a low-rank sketch of the Hessian."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.hypergradients.fields import check_whole
from mlo.hypergradients.preconditioners.base import Preconditioner, Preconditioning
from mlo.hypergradients.sketch import directions, sketch
from mlo.types import Tensors
from mlo.vectors import flat, unflat

if TYPE_CHECKING:
    from mlo.condition import Condition


@dataclasses.dataclass(frozen=True)
class NystromSketch(Preconditioner):
    r"""The few large curvatures scaled down to the smallest that was seen, the rest left alone.

        M^{-1} = I + U (s / (|lambda| + damping) - 1) U^T,    s = min |lambda| + damping

    with ``H_k = U diag(lambda) U^T`` the Nystrom sketch of H from `rank` random directions (see
    `mlo.hypergradients.sketch`). For a positive semidefinite H the condition number of
    M^{-1} (H + damping I) is below 28 in the mean once `rank` is above three times the effective
    dimension, sum lambda / (lambda + damping). It helps where few directions are stiff, whatever
    they mix, and asks for a symmetric H.

    Cost: `rank` products at each point, however many solves there are, then O(rank) vector
    operations an application. Memory: `rank` vectors of the parameters' size, 3 `rank` while it is
    made. An accelerator is waited for once at each point.

    Source: Frangella, Tropp, Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal.
    Appl. 44, 2023, theorem 1.1.

    Args:
        rank: directions, and products, of the sketch; at most as many as there are parameters.
        seed: of the directions, which come from a generator of their own.
    """

    symmetric: ClassVar[bool] = True

    rank: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "rank", least=1)
        check_whole(self, "seed", least=0)

    def work(self, size: int) -> int:
        """One product a direction."""
        return min(self.rank, size)

    def prepare(self, condition: Condition, damping: float) -> Preconditioning:
        """Sketch the Hessian at this condition."""
        tests = directions(condition.params, self.rank, self.seed)
        basis, values = sketch(condition.hvp, condition.params, tests)
        size = values.abs()
        # What the sketch calls zero is rounding, and no scale to go down to.
        least = torch.finfo(size.dtype).eps ** 0.5 * size.amax()
        scale = torch.maximum(size, least) + damping
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        weights = scale.amin() / scale - 1.0
        apply = functools.partial(_lowered, basis=basis, weights=weights)
        return Preconditioning(apply, tests.shape[1])


def _lowered(v: Tensors, *, basis: Tensor, weights: Tensor) -> Tensors:
    """``v + U (weights * U^T v)``, in the dtypes of v."""
    whole = flat(tuple(t.to(basis.dtype) for t in v))
    found = whole + basis @ (weights * (basis.T @ whole))
    return tuple(x.to(t.dtype) for x, t in zip(unflat(found, v), v, strict=True))
