r"""Quadratic losses at any depth, solved by backward induction with matrices.

All levels are stacked into one vector z, the lowest first, and level k has the loss

    f_k(z) = z^T Q_k z / 2 - b_k^T z

with Q_k positive definite. The solutions of the levels below k are an affine map of the others,
z = M_k y_k + m_k with y_k the levels from k upwards. Substituted, the loss of level k stays
strongly convex, because M_k is injective, and its solution

    w_k = -R_oo^{-1} (R_or y_{k+1} + s_o),    R = M_k^T Q_k M_k,    s = M_k^T (Q_k m_k - b_k)

(o: its own rows, r: the rest) is an affine map again, which gives M_{k+1} and m_{k+1}. At the top
the total gradient is M^T (Q (M x + m) - b).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlo.errors import ConfigurationError
from mlo.testing.forms.drawn import Draw
from mlo.testing.forms.form import (
    ClosedForm,
    Level,
    Named,
    condition_number,
    sensitivity,
)


def quadratic(
    depth: int = 2,
    *,
    size: int = 4,
    condition: float = 10.0,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """Quadratic losses, each of which reads all problems: with depth 3 or more it is nested.

    Args:
        depth: how many problems, the upper one included.
        size: parameters of the lowest problem; each one above has one more.
        condition: condition number of the Hessian of each loss in its own parameters; 1 makes the
            lowest one ``scale`` times the identity.
        scale: its largest eigenvalue.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.

    Raises:
        ConfigurationError: depth or size are below 2.
    """
    if depth < 2 or size < 2:
        raise ConfigurationError(
            f"quadratic() needs a depth and a size of at least 2, got {depth} and {size}"
        )
    draw = Draw(seed)
    sizes = [size + k for k in range(depth)]
    losses = [_loss(draw, sizes, k, condition=condition, scale=scale) for k in range(depth)]
    x = draw.normal(sizes[-1])
    found = _solve(losses, sizes, x)

    def cast(t: Tensor) -> Tensor:
        return t.to(device, dtype)

    names = tuple(f"level{k}" for k in range(depth))
    levels = []
    for k, name in enumerate(names):
        w = found.levels[k]
        away = w if k == depth - 1 else w + 0.5 * draw.normal(len(w))
        loss = _as_function(*(cast(t) for t in losses[k]))
        levels.append(Level(name, loss, names, _named(cast(w)), _named(cast(away))))
    distinction = f"depth {depth}" if condition < 1e3 else f"cond. {condition:.0e}"
    return ClosedForm(
        name=f"quadratic, {distinction}",
        upper=names[-1],
        levels=tuple(levels),
        truth=_named(cast(found.gradient)),
        nested=depth > 2,
        condition=found.condition,
        sensitivity=found.sensitivity,
    )


@dataclasses.dataclass(frozen=True)
class _Solved:
    levels: tuple[Tensor, ...]
    gradient: Tensor
    condition: float
    sensitivity: float


def _solve(losses: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[int], x: Tensor) -> _Solved:
    """Backward induction, see the module."""
    total = sum(sizes)
    M, m = torch.eye(total, dtype=x.dtype), torch.zeros(total, dtype=x.dtype)
    maps, conditions = [], []
    for (Q, b), own in zip(losses[:-1], sizes, strict=False):
        maps.append((M, m))
        R, s = M.T @ Q @ M, M.T @ (Q @ m - b)
        conditions.append(condition_number(R[:own, :own]))
        affine = -torch.linalg.solve(R[:own, :own], torch.cat([R[:own, own:], s[:own, None]], 1))
        rest = torch.eye(M.shape[1] - own, dtype=x.dtype)
        T = torch.cat([affine[:, :-1], rest])
        t = torch.cat([affine[:, -1], torch.zeros(len(rest), dtype=x.dtype)])
        M, m = M @ T, M @ t + m
    z, (Q, b) = M @ x + m, losses[-1]
    slope = Q @ z - b
    gradient = M.T @ slope
    # v_k: the upper loss differentiated by level k with those below k substituted.
    cotangents = [(Mk.T @ slope)[:own] for (Mk, _), own in zip(maps, sizes, strict=False)]
    # Residuals of inner solves enter the outer Hessians too, at most about once a level.
    levels = 1 if len(sizes) == 2 else len(sizes)
    amplified = levels * sensitivity(
        M.split(list(sizes))[:-1], cotangents, gradient - slope[-len(x) :]
    )
    return _Solved(z.split(list(sizes)), gradient, max(conditions), amplified)


def _loss(
    draw: Draw, sizes: Sequence[int], k: int, *, condition: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Q and b of level k: its own block has the given spectrum, and Q is positive definite.

    With Q_or = Q_oo^{1/2} K Q_rr^{1/2} and |K| < 1 the Schur complement of Q_oo is positive; with
    b = Q c the loss has its minimum at c, of order one however small an eigenvalue is.
    """
    own = sizes[k]
    rest = sum(sizes) - own
    inside = draw.positive(own, condition=condition, scale=scale)
    outside = draw.positive(rest, condition=3.0)
    across = _root(inside) @ draw.below_one(own, rest) @ _root(outside)
    before = sum(sizes[:k])
    index = torch.cat([torch.arange(before, before + own), torch.arange(before)])
    index = torch.cat([index, torch.arange(before + own, own + rest)])
    Q = torch.empty(own + rest, own + rest, dtype=inside.dtype)
    Q[index[:, None], index] = torch.cat(
        [torch.cat([inside, across], 1), torch.cat([across.T, outside], 1)]
    )
    return Q, Q @ draw.normal(own + rest)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.sqrt()) @ vectors.T
    return root


def _as_function(Q: Tensor, b: Tensor) -> Callable[..., Tensor]:
    def loss(*read: Named) -> Tensor:
        z = torch.cat([t for w in read for t in (w["matrix"].reshape(-1), w["scalar"].reshape(1))])
        return 0.5 * z @ Q @ z - b @ z

    return loss


def _named(vector: Tensor) -> dict[str, Tensor]:
    """As two parameters of different shapes."""
    return {"matrix": vector[:-1].reshape(-1, 1), "scalar": vector[-1].reshape(())}
