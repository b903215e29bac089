"""`ConjugateGradient`: the linear system solved by conjugate gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.hypergradients.krylov import Krylov, idle, lost_in_rounding, ratio
from mlo.hypergradients.preconditioners import Apply
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, times, where

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("conjugate-gradient")
@dataclasses.dataclass(frozen=True)
class ConjugateGradient(Krylov):
    r"""Conjugate gradients on ``(H + damping I) u = v``, preconditioned and started warm if asked.

    Cost: one product an iteration and one at the end, about 2 gradient evaluations each, after one
    for the shared graph; what a preconditioner takes, and one for a warm start. Memory: 5 vectors
    of the parameters' size, 6 with a preconditioner, one more that a warm start remembers. Bias:
    after n iterations the error in the norm of H + damping I is at most 2 ((sqrt k - 1) /
    (sqrt k + 1))^n of the first, k the condition number of M^{-1} (H + damping I); exact after as
    many iterations as that has distinct eigenvalues, up to rounding; the residual may grow on the
    way. `damping` shifts the spectrum. It needs H + damping I positive definite: at a direction of
    negative curvature it stops with the iterate so far and says so; at one whose curvature is lost
    in rounding (``|p^T H p| <= 10 eps |H| |p|^2``) too, with the iterate of the smallest residual.
    Of a singular H without negative eigenvalues rounding decides whether the outcome is `singular`
    or `negative curvature`.
    Whatever the preconditioner, it stops by the Euclidean norm of the residual.
    Sources: Hestenes and Stiefel, 1952; Saad, "Iterative methods for sparse linear systems",
    2nd edition, algorithm 9.1; Pedregosa, ICML 2016; Rajeswaran et al., NeurIPS 2019.

    Args: those of `Krylov`.
    """

    monotone: ClassVar[bool] = False

    def iterate(
        self, condition: Condition, rest: Tensors, *, apply: Apply, target: Tensor
    ) -> LinearSolution:
        """Iterate; every update is masked by whether the iteration is still active."""
        # Zeros that stay NaN where the right-hand side is: it must not look like an answer.
        x, r = times(rest, (0.0,) * len(rest)), rest
        z = apply(r)
        p, rho = z, dot(r, z)
        stop = target.square()
        active = (_square(r, z, rho) > stop) & (rho > 0)
        seen, best, least = _Curvatures(rest, rho), x, _square(r, z, rho)
        products = torch.zeros_like(rho, dtype=torch.int64)
        for _ in range(self.iterations):
            if idle(active):
                break
            product = condition.hvp(p)
            if self.damping:
                product = add_scaled(product, self.damping, p)
            curvature = dot(p, product)
            products = products + active
            active = seen.positive(p, product, curvature, active)
            step = ratio(rho, curvature, active)
            x, r = add_scaled(x, step, p), add_scaled(r, -step, product)
            z = apply(r)
            new = torch.where(active, dot(r, z), rho)
            turn = ratio(new, rho, active)
            p = add_scaled(z, turn, p)
            left = _square(r, z, new)
            rho, active = new, active & (left > stop) & (new > 0)
            best = where(left < least, x, best)
            least = torch.minimum(left, least)
        # Up to a curvature that is lost, iterates run away along what cannot be solved.
        return LinearSolution(where(seen.lost, best, x), Info(products=products, code=seen.code))


class _Curvatures:
    """Judges the curvatures that were met.

    Attributes:
        code: of the outcome, 0 while all are positive.
        lost: whether one was lost in rounding, be it of either sign.
    """

    def __init__(self, rest: Tensors, like: Tensor) -> None:
        self.code = torch.zeros_like(like, dtype=torch.int64)
        self.lost = torch.zeros_like(like, dtype=torch.bool)
        self._part, self._steepest = lost_in_rounding(rest), torch.zeros_like(like)

    def positive(self, p: Tensors, product: Tensors, curvature: Tensor, active: Tensor) -> Tensor:
        """Whether to go on along p: ``p^T H p`` is positive by more than rounding."""
        square = dot(p, p)
        slope = ratio(dot(product, product), square, square > 0).sqrt()
        steeper = slope.isfinite() & (slope > self._steepest)
        self._steepest = torch.where(steeper, slope, self._steepest)
        bound = self._part * self._steepest * square
        flat = active & (curvature <= bound)
        self.lost = self.lost | (flat & (curvature >= -bound))
        # A semidefinite H leaves little of p where it leaves little of p^T H p.
        null = flat & (slope.square() <= self._part * self._steepest.square())
        self.code = code_where(flat, Outcome.NEGATIVE_CURVATURE, self.code)
        self.code = code_where(null, Outcome.SINGULAR, self.code)
        return active & (curvature > bound)


def _square(r: Tensors, z: Tensors, rho: Tensor) -> Tensor:
    """``r^T r``, which is rho = r^T z where nothing is preconditioned."""
    return rho if z is r else dot(r, r)
