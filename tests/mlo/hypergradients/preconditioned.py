"""Preconditioners written out, and right-hand sides, for the tests of solvers."""

from __future__ import annotations

import dataclasses

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
