"""Conjugate gradients that count their products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-9
"""Of the residual, relative to the right-hand side; the engine gets the same."""


def conjugate_gradients(product: Callable[[Tensor], Tensor], v: Tensor, count: list[int]) -> Tensor:
    """Plain conjugate gradients; appends the number of products."""
    u, r = torch.zeros_like(v), v
    p, rho, stop = r, r.square().sum(), (TOLERANCE * v.norm()) ** 2
    taken = 0
    while rho > stop and taken < 500:
        q = product(p)
        step = rho / (p * q).sum()
        u, r = u + step * p, r - step * q
        rho, before = r.square().sum(), rho
        p = r + rho / before * p
        taken += 1
    count.append(taken)
    return u
