r"""One of the two quadratic functions: samples, their loss, and the matrices of the whole.

    q(z, x) = 1/n sum_i  z^T H_i z / 2 + x^T K_i x / 2 + x^T C_i z + c_i^T z + d_i^T x

Every H_i = a_i a_i^T, K_i = b_i b_i^T and C_i = l_i r_i^T has rank one, so a batch costs as much as
its vectors. They are whitened: the means H, K and C have their prescribed spectra exactly.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Mean:
    """The matrices H, K, C and vectors c, d of the whole function."""

    H: Tensor
    K: Tensor
    C: Tensor
    c: Tensor
    d: Tensor

    def value(self, z: Tensor, x: Tensor) -> Tensor:
        """q(z, x)."""
        squares = z @ (self.H @ z) + x @ (self.K @ x)
        return 0.5 * squares + x @ (self.C @ z) + self.c @ z + self.d @ x

    def slope_z(self, z: Tensor, x: Tensor) -> Tensor:
        """dq/dz."""
        return self.H @ z + self.C.T @ x + self.c

    def slope_x(self, z: Tensor, x: Tensor) -> Tensor:
        """dq/dx."""
        return self.K @ x + self.C @ z + self.d


@dataclasses.dataclass(frozen=True)
class Samples:
    """The vectors of every sample, one a row."""

    a: Tensor
    b: Tensor
    left: Tensor
    right: Tensor
    c: Tensor
    d: Tensor

    def value(self, z: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """The mean of the samples in `rows` at (z, x)."""
        squares = (self.a[rows] @ z).square() + (self.b[rows] @ x).square()
        across = (self.left[rows] @ x) * (self.right[rows] @ z)
        return (0.5 * squares + across + self.c[rows] @ z + self.d[rows] @ x).mean()

    def mean(self) -> Mean:
        """The function of all samples by its matrices."""
        n = len(self.a)
        return Mean(
            self.a.T @ self.a / n,
            self.b.T @ self.b / n,
            self.left.T @ self.right / n,
            self.c.mean(0),
            self.d.mean(0),
        )


def draw_samples(
    generator: torch.Generator,
    count: int,
    sizes: tuple[int, int],
    *,
    lowest: float,
    tops: tuple[float, float, float],
) -> Samples:
    """Draw a function of z and x.

    Args:
        generator: of the random numbers.
        count: how many samples; at least as many as the larger size.
        sizes: of z and of x.
        lowest: smallest eigenvalue of H, and smallest singular value of C. K has one eigenvalue
            of zero, and the others from `lowest` on.
        tops: largest eigenvalues of H and of K, and the largest singular value of C.
    """
    p, d = sizes
    inner, outer, cross = tops
    zero = torch.zeros(1, dtype=torch.float64)
    a = _rows(generator, count, spectrum(lowest, inner, p))
    b = _rows(generator, count, torch.cat([zero, spectrum(lowest, outer, d - 1)]))
    few = min(p, d)
    w = _white(generator, count, few) * spectrum(lowest, cross, few).sqrt()
    left, right = (w @ _rotation(generator, size)[:few] for size in (d, p))
    return Samples(a, b, left, right, _normal(generator, count, p), _normal(generator, count, d))


def spectrum(lowest: float, highest: float, count: int) -> Tensor:
    """Equal ratios between neighbours."""
    steps = torch.linspace(0, 1, count, dtype=torch.float64)
    return lowest * (highest / lowest) ** steps


def _rows(generator: torch.Generator, count: int, eigenvalues: Tensor) -> Tensor:
    """Rows whose mean outer product has these eigenvalues, in a random basis."""
    size = len(eigenvalues)
    white = _white(generator, count, size)
    return white * eigenvalues.sqrt() @ _rotation(generator, size)


def _white(generator: torch.Generator, count: int, size: int) -> Tensor:
    """Normal rows, made so that their mean outer product is the identity."""
    rows = _normal(generator, count, size)
    root = torch.linalg.cholesky(rows.T @ rows / count)
    return torch.linalg.solve_triangular(root, rows.T, upper=False).T


def _rotation(generator: torch.Generator, size: int) -> Tensor:
    return torch.linalg.qr(_normal(generator, size, size))[0]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
