"""`ConjugateGradient`: the linear system solved by conjugate gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch

from mlo.hypergradients.fields import check_number, check_whole
from mlo.hypergradients.implicit import Implicit
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, times

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("conjugate-gradient")
@dataclasses.dataclass(frozen=True)
class ConjugateGradient(Implicit):
    r"""Conjugate gradients on ``(H + damping I) u = v``.

    Cost: one product an iteration and one at the end, about 2 gradient evaluations each, after one
    for the shared graph. Memory: 4 vectors of the parameters' size. Bias: after n iterations the
    error in the H-norm is at most 2 ((sqrt k - 1) / (sqrt k + 1))^n of the first, k the condition
    number; exact after as many iterations as H has distinct eigenvalues, up to rounding; the
    residual may grow on the way. `damping` shifts the spectrum. It needs H + damping I positive
    definite: at a direction of negative curvature it stops with the iterate so far and says so.
    Sources: Hestenes and Stiefel, 1952; Pedregosa, ICML 2016; Rajeswaran et al., NeurIPS 2019.

    On a CPU it stops as soon as the tolerance is met. On an accelerator that would mean waiting
    for it in every iteration, so there all `iterations` are launched, and those after convergence
    change nothing.

    Args:
        iterations: upper bound on the iterations.
        tolerance: relative residual at which it stops.
        damping: added to the diagonal of H.
    """

    monotone: ClassVar[bool] = False

    iterations: int = 20
    tolerance: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_whole(self, "iterations", least=1)
        check_number(self, "tolerance")
        check_number(self, "damping")

    def work(self, size: int) -> int:
        """One product an iteration, and one at the end."""
        return self.iterations + 1

    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Iterate; every update is masked by whether the iteration is still active."""
        v = cotangent
        # Zeros that stay NaN where the right-hand side is: it must not look like an answer.
        x, r, p = times(v, (0.0,) * len(v)), v, v
        rho = dot(r, r)
        stop = rho * self.tolerance**2
        active, negative = rho > stop, torch.zeros_like(rho, dtype=torch.bool)
        products = torch.zeros_like(rho, dtype=torch.int64)
        for _ in range(self.iterations):
            if rho.device.type == "cpu" and not active:
                break
            product = condition.hvp(p)
            if self.damping:
                product = add_scaled(product, self.damping, p)
            curvature = dot(p, product)
            products = products + active
            negative = negative | (active & (curvature <= 0))
            active = active & (curvature > 0)
            step = _ratio(rho, curvature, active)
            x, r = add_scaled(x, step, p), add_scaled(r, -step, product)
            new = torch.where(active, dot(r, r), rho)
            turn = _ratio(new, rho, active)
            p = add_scaled(r, turn, p)
            rho, active = new, active & (new > stop)
        code = code_where(negative, Outcome.NEGATIVE_CURVATURE, 0)
        return LinearSolution(x, Info(products=products + 1, code=code))


def _ratio(a: torch.Tensor, b: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """``a / b`` where active, else 0; never divides by what is not positive."""
    safe = torch.where(active, b, torch.ones_like(b))
    return torch.where(active, a / safe, torch.zeros_like(a))
