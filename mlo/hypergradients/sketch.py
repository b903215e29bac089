r"""A low-rank sketch of the Hessian from a few of its products, and what it solves.

    H_k = Y W^+ Y^T,    Y = H X,    W = X^T Y    (Nystrom)

for k orthonormal test directions X, kept as H_k = U diag(lambda) U^T with orthonormal U. For a
positive semidefinite H it lies between 0 and H, and is H where k is the number of parameters; for
an indefinite one there is no such order, and whoever uses it measures what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from mlo.types import Tensors
from mlo.vectors import flat, rounding, unflat

Product = Callable[[Tensors], Tensors]
"""p -> H p, with a symmetric H."""


def directions(like: Tensors, rank: int, seed: int) -> Tensor:
    """Orthonormal test directions that span a Gaussian subspace, one a column.

    Args:
        like: the parameters.
        rank: how many; there are no more than entries.
        seed: of a generator on the CPU, so that every device gets the same; no global random
            state is read or changed.
    """
    size = sum(t.numel() for t in like)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randn(size, min(rank, size), generator=draw, dtype=_wide(like))
    basis, _ = torch.linalg.qr(drawn.to(like[0].device))
    return cast(Tensor, basis)


def sketch(hvp: Product, like: Tensors, tests: Tensor) -> tuple[Tensor, Tensor]:
    r"""The basis U, one vector a column, and the eigenvalues lambda of H_k.

    Cost: a product for each test direction, then O(size k^2). Memory: about 4 k vectors on the
    way, k at the end, in float32 or better. Eigenvalues of W that are rounding are dropped, which
    gives lambda = 0 (Nakatsukasa, arXiv 2009.11392); the Cholesky factor of Frangella, Tropp and
    Udell, SIMAX 2023, algorithm 2.1, does as well, but asks for a positive semidefinite H. What is
    not finite gives eigenvalues of NaN. The decompositions of k x k matrices report their errors to
    the host, so an accelerator is waited for while a sketch is made; a solve waits for nothing.

    Args:
        hvp: p -> H p.
        like: the parameters, which p has the shapes and dtypes of.
        tests: X, orthonormal columns.
    """
    columns = (hvp(_narrowed(x, like)) for x in tests.T)
    images = torch.stack([_widened(y, tests.dtype) for y in columns], dim=1)
    sound = images.isfinite().all()
    images = torch.where(sound, images, torch.zeros_like(images))
    weights, turn = torch.linalg.eigh(_symmetric(tests.T @ images))
    kept = weights.abs() > rounding(like) * torch.linalg.matrix_norm(images)
    inverse = torch.where(kept, 1.0 / torch.where(kept, weights, 1.0), 0.0)
    basis, triangle = torch.linalg.qr(images)
    turned = triangle @ turn
    values, turn = torch.linalg.eigh(_symmetric((turned * inverse) @ turned.T))
    return basis @ turn, torch.where(sound, values, torch.nan)


def solve_sketched(basis: Tensor, values: Tensor, damping: float, v: Tensors) -> Tensors:
    r"""``(U diag(lambda) U^T + damping I)^{-1} v``, the Woodbury formula in an orthonormal basis.

        U (lambda + damping)^{-1} U^T v + (v - U U^T v) / damping

    Projecting twice keeps the rounding of the first term out of the second, which divides by what
    may be small.
    """
    whole = _widened(v, basis.dtype)
    inside = basis.T @ whole
    outside = whole - basis @ inside
    outside = outside - basis @ (basis.T @ outside)
    return _narrowed(basis @ (inside / (values + damping)) + outside / damping, v)


def cancels(values: Tensor, damping: float, like: Tensors) -> Tensor:
    """Whether the damping cancels a negative eigenvalue up to rounding, 0-dim."""
    lost = len(values) * rounding(like) * values.abs().amax()
    return ((values < -lost) & ((values + damping).abs() <= lost)).any()


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.T)


def _wide(like: Tensors) -> torch.dtype:
    """Float64 where a parameter has it, else float32."""
    double = any(t.dtype is torch.float64 for t in like)
    return torch.float64 if double else torch.float32


def _widened(tensors: Tensors, dtype: torch.dtype) -> Tensor:
    return flat(tuple(t.to(dtype) for t in tensors))


def _narrowed(vector: Tensor, like: Tensors) -> Tensors:
    return tuple(x.to(t.dtype) for x, t in zip(unflat(vector, like), like, strict=True))
