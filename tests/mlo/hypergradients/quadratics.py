"""One linear system, seen through the seam of the methods.

The loss w'Hw/2 - w'c has g = Hw - c, so that -(dg/dc)^T u is the adjoint u itself: whatever a
method answers is its solution of Hu = v, and can be compared with `torch.linalg`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import mlo
from mlo.condition import Condition


def symmetric(eigenvalues: Sequence[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix with these eigenvalues, and its eigenvectors as columns."""
    draw = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    vectors, _ = torch.linalg.qr(torch.randn(n, n, generator=draw))
    return vectors @ torch.diag(torch.tensor(eigenvalues)) @ vectors.T, vectors


def split(vector: Tensor) -> tuple[Tensor, ...]:
    """As three parameters of several shapes; needs 4 entries or more."""
    return vector[:1].reshape(()), vector[1:3].reshape(1, 2), vector[3:].reshape(-1, 1)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def condition_of(hessian: Tensor, rates: tuple[float, ...] = (0.1, 0.1, 0.1)) -> Condition:
    def objective(w: Sequence[Tensor], c: Sequence[Tensor]) -> Tensor:
        w, c = joined(w), joined(c)
        return 0.5 * w @ hessian @ w - w @ c

    point = split(torch.linspace(-1.0, 1.0, len(hessian), dtype=hessian.dtype))
    with torch.no_grad():
        return Condition(objective, point, point, problem="quadratic", learning_rate=rates)


def answer(
    method: mlo.Hypergradient, hessian: Tensor, v: Tensor, **settings: object
) -> tuple[Tensor, mlo.Info]:
    """The adjoint and how it was found."""
    with torch.no_grad():
        result = method.vjp(condition_of(hessian, **settings), split(v), None)
    return joined(result.grads), result.info


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
