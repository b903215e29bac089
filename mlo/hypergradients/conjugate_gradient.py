"""`ConjugateGradient`: the linear system solved by conjugate gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.hypergradients.fields import check_flag, check_number, check_whole
from mlo.hypergradients.iterative import Iterative, lost_in_rounding
from mlo.hypergradients.preconditioners import Apply, Preconditioner, find_preconditioner
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, times, where

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("conjugate-gradient")
@dataclasses.dataclass(frozen=True)
class ConjugateGradient(Iterative):
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

    On a CPU it stops as soon as the tolerance is met. On an accelerator that would mean waiting
    for it in every iteration, so there all `iterations` are launched, and those after convergence
    change nothing.

    Args:
        iterations: upper bound on the iterations.
        tolerance: relative residual at which it stops.
        damping: added to the diagonal of H.
        preconditioner: M near H + damping I: `"diagonal"`, `"nystrom"`, `"optimizer"`, an instance
            such as `Diagonal(probes=4)`, or `None` for none.
        warm_start: begin from the adjoint that was found last.
    """

    monotone: ClassVar[bool] = False

    iterations: int = 20
    tolerance: float = 1e-6
    damping: float = 0.0
    preconditioner: str | Preconditioner | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_whole(self, "iterations", least=1)
        check_number(self, "tolerance")
        check_number(self, "damping")
        check_flag(self, "warm_start")
        find_preconditioner(self.preconditioner)

    def work(self, size: int) -> int:
        """One product an iteration, and one at the end."""
        return self.iterations + self.overhead(size)

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
        steepest, code = torch.zeros_like(rho), torch.zeros_like(rho, dtype=torch.int64)
        best, least, away = x, _square(r, z, rho), torch.zeros_like(active)
        products = torch.zeros_like(rho, dtype=torch.int64)
        for _ in range(self.iterations):
            if rho.device.type == "cpu" and not active:
                break
            product = condition.hvp(p)
            if self.damping:
                product = add_scaled(product, self.damping, p)
            curvature, square = dot(p, product), dot(p, p)
            products = products + active
            slope = _ratio(dot(product, product), square, square > 0).sqrt()
            steepest = torch.where(slope.isfinite(), torch.maximum(steepest, slope), steepest)
            lost = lost_in_rounding(rest)
            bound = lost * steepest * square
            flat = active & ~(curvature > bound) & ~curvature.isnan()
            away = away | (flat & (curvature >= -bound))
            # A semidefinite H leaves little of p where it leaves little of p^T H p.
            null = flat & (slope.square() <= lost * steepest.square())
            code = code_where(flat, Outcome.NEGATIVE_CURVATURE, code)
            code = code_where(null, Outcome.SINGULAR, code)
            active = active & ~flat & ~curvature.isnan()
            step = _ratio(rho, curvature, active)
            x, r = add_scaled(x, step, p), add_scaled(r, -step, product)
            z = apply(r)
            new = torch.where(active, dot(r, z), rho)
            turn = _ratio(new, rho, active)
            p = add_scaled(z, turn, p)
            left = _square(r, z, new)
            rho, active = new, active & (left > stop) & (new > 0)
            best = where(left < least, x, best)
            least = torch.minimum(left, least)
        # Up to a curvature that is lost, iterates run away along what cannot be solved.
        return LinearSolution(where(away, best, x), Info(products=products, code=code))


def _square(r: Tensors, z: Tensors, rho: Tensor) -> Tensor:
    """``r^T r``, which is rho = r^T z where nothing is preconditioned."""
    return rho if z is r else dot(r, r)


def _ratio(a: Tensor, b: Tensor, active: Tensor) -> Tensor:
    """``a / b`` where active, else 0; never divides by what is not positive."""
    safe = torch.where(active, b, torch.ones_like(b))
    return torch.where(active, a / safe, torch.zeros_like(a))
