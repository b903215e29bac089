"""An upper bound of the spectrum of a matrix of which only products are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mlo.hypergradients.probes import Probes
from mlo.types import Tensors
from mlo.vectors import norm, times

FAILURE = 0.01
"""The probability with which the bound may be below the spectral radius, at most."""


def spectral_bound(
    product: Callable[[Tensors], Tensors], like: Tensors, iterations: int, seed: int
) -> Tensor:
    r"""Return L >= |lambda| for every eigenvalue of K, by the power method with a random start.

        L = (theta |K^j x|^2)^{1 / (2 j)},    theta = (2 / pi) n / FAILURE^2,    j = iterations

    with x uniform on the unit sphere. K^jT K^j has an eigenvector b to the eigenvalue |K^j|^2, so
    |K^j x| >= |K^j| |b^T x|, and |b^T x| < t has at most the probability t sqrt(2 n / pi): L is at
    least |K^j|^{1/j}, which is no less than the spectral radius, but with the probability FAILURE.
    It is below half of that with the probability FAILURE / 2^j. No gap in the spectrum is asked
    for, and no symmetry. For a symmetric K it is above by the factor theta^{1 / (2 j)} at most: 2.2
    for a thousand unknowns and ten iterations, 3.1 for a million.

    Source: Dixon, "Estimating extremal eigenvalues and condition numbers of matrices", SIAM J.
    Numer. Anal. 20, 1983, theorem 1; here for K^jT K^j.

    Args:
        product: x -> K x.
        like: tensors of the shapes of x.
        iterations: products to take.
        seed: of the start, which is drawn from a generator of its own.

    Returns:
        L, 0-dim; zero if K x is; NaN or infinity where a product is not finite.
    """
    x = Probes(like, seed).gaussian()
    x = _scaled(x, norm(x))
    growth = torch.zeros_like(norm(x))
    for _ in range(iterations):
        x = product(x)
        size = norm(x)
        growth = growth + size.log()
        x = _scaled(x, torch.where(size == 0, torch.ones_like(size), size))
    theta = 2.0 / math.pi * sum(t.numel() for t in like) / FAILURE**2
    bound: Tensor = (growth / iterations).exp() * theta ** (0.5 / iterations)
    return bound


def _scaled(x: Tensors, size: Tensor) -> Tensors:
    return times(x, (size.reciprocal(),) * len(x))
