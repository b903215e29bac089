"""Preconditioners written out, right-hand sides and the textbook method, for tests of solvers."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mlo.hypergradients.preconditioners import Preconditioner, Preconditioning

from .quadratics import joined, split, symmetric


def right_side(n, seed=1):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def positive(n, seed=5):
    """A matrix with condition number 300."""
    return symmetric(torch.logspace(-1, 1.5, n).tolist(), seed=seed)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Given(Preconditioner):
    """M^{-1} written out."""

    inverse: torch.Tensor

    def prepare(self, condition, damping):
        return Preconditioning(lambda v: split(self.inverse @ joined(v)))


def chosen(kind, n):
    """M^{-1}, and the preconditioner that applies it."""
    inverse = torch.eye(n) if kind is None else positive(n)
    return inverse, None if kind is None else Given(inverse)


def fixed(matrix):
    """The preconditioner M."""
    return Given(torch.linalg.inv(matrix))


def textbook(a, b, inverse, iterations, x=None):
    """Preconditioned conjugate gradients, in the words of a textbook, with numpy."""
    x = np.zeros_like(b) if x is None else x
    r = b - a @ x
    z = inverse @ r
    p, rz = z, r @ z
    for _ in range(iterations):
        ap = a @ p
        step = rz / (p @ ap)
        x, r = x + step * p, r - step * ap
        z = inverse @ r
        rz, before = r @ z, rz
        p = z + rz / before * p
    return x
