"""One linear system as a program: the upper gradient is the adjoint itself.

Below stands w^T H w / 2 - w^T c, above v^T w (and nothing times c), so that dw/dc = H^{-1} and the
gradient with respect to c is whatever a method puts in the place of H^{-1} v.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

import mlo

from .claims import RATE
from .theory import Array


def symmetric(eigenvalues: Array, seed: int) -> Array:
    """A matrix with these eigenvalues and drawn eigenvectors."""
    draw = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(draw.normal(size=(len(eigenvalues), len(eigenvalues))))
    matrix = vectors * np.asarray(eigenvalues) @ vectors.T
    return (matrix + matrix.T) / 2


def geometric(size: int, condition: float) -> Array:
    """Eigenvalues from 1 / condition to 1."""
    return np.geomspace(1.0 / condition, 1.0, size)


def cotangent(size: int, seed: int) -> Array:
    return np.random.default_rng(1000 + seed).normal(size=size)


def program(
    method: mlo.Hypergradient,
    H: Array,
    v: Array,
    dtype: torch.dtype = torch.float64,
    **settings: object,
) -> tuple[mlo.Engine, torch.Tensor]:
    """It stands at a solution, w = c = 0, of two parameters; and v, to write to."""
    matrix, sight = torch.tensor(H, dtype=dtype), torch.tensor(v, dtype=dtype)

    def joined(low):
        return torch.cat([low["row"].reshape(-1), low["one"].reshape(1)])

    def lower(low, top):
        w = joined(low)
        return 0.5 * w @ matrix @ w - w @ top["c"]

    def upper(low, top):
        return sight @ joined(low) + 0.0 * top["c"].sum()

    row, one = torch.zeros(1, len(v) - 1, dtype=dtype), torch.zeros((), dtype=dtype)
    low = mlo.Problem(
        "low",
        params={"row": row, "one": one},
        loss=lower,
        optimizer=functools.partial(torch.optim.SGD, lr=RATE),
        hypergradient=method,
    )
    still = functools.partial(torch.optim.SGD, lr=0.0)
    c = {"c": torch.zeros(len(v), dtype=dtype)}
    top = mlo.Problem("top", params=c, loss=upper, optimizer=still)
    return mlo.Engine([low, top], **settings), sight


def adjoint(
    method: mlo.Hypergradient, H: Array, v: Array, *, ticks: int = 0
) -> tuple[Array, mlo.Info]:
    """What the method puts in the place of H^{-1} v, and how it went."""
    engine, _ = program(method, H, v)
    for _ in range(ticks):
        engine.step()
    return asked_of(engine)


def asked_of(engine: mlo.Engine) -> tuple[Array, mlo.Info]:
    values, (response,) = engine.total_gradient("top")
    return values["c"].detach().double().numpy(), response.info


def as_matrix(method: mlo.Hypergradient, H: Array, *, ticks: int = 0) -> Array:
    """The map that a method applies, one column after the other at one point."""
    engine, sight = program(method, H, np.zeros(len(H)))
    for _ in range(ticks):
        engine.step()
    columns = []
    for e in np.eye(len(H)):
        sight.copy_(torch.from_numpy(e))
        columns.append(asked_of(engine)[0])
    return np.array(columns).T
