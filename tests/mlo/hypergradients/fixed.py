"""Preconditioners that are given as a matrix, and the textbook method to compare with."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mlo.hypergradients import Preconditioner, Preconditioning

from .quadratics import joined, split


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed(Preconditioner):
    """Applies the inverse of a matrix."""

    matrix: torch.Tensor

    def prepare(self, condition, damping):
        inverse = torch.linalg.inv(self.matrix)
        return Preconditioning(lambda v: split(inverse @ joined(v)))


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
