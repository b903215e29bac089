"""`Neumann`: a truncated series for the inverse Hessian."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.hypergradients.fields import check_number, check_whole
from mlo.hypergradients.implicit import Implicit, grown
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, times

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("neumann")
@dataclasses.dataclass(frozen=True)
class Neumann(Implicit):
    r"""The first `terms` terms of the Neumann series of H^{-1}.

        u = sum_{k=0}^{terms-1} (I - A H)^k A v

    with A = alpha I, or (default) the diagonal of the problem's own learning rates, for which the
    series converges wherever gradient descent at these rates does.

    Cost: `terms` products, about 2 gradient evaluations each, after one for the shared graph.
    Memory: 3 vectors of the parameters' size. Bias: error (1 - alpha mu)^terms relative to the
    solution along an eigenvector with eigenvalue mu; it converges if and only if
    0 < mu < 2 / alpha for every eigenvalue. Otherwise it diverges, and the outcome says so once the
    last rest has grown or the residual is larger than the right-hand side.
    Source: Lorraine, Vicol, Duvenaud, AISTATS 2020, algorithm 3.

    Args:
        terms: terms of the series; 1 gives u = alpha v.
        alpha: step of the series; `None` takes the optimizer's learning rates.
        tolerance: relative residual at which the outcome counts as converged.
    """

    symmetric: ClassVar[bool] = False

    terms: int = 10
    alpha: float | None = None
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_whole(self, "terms", least=1)
        check_number(self, "tolerance")
        if self.alpha is not None:
            check_number(self, "alpha", positive=True)

    def work(self, size: int) -> int:
        """One product a term."""
        return self.terms

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Without `alpha`, the optimizer's learning rates."""
        return frozenset({"learning_rate"}) if self.alpha is None else frozenset()

    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Sum the series: r_{k+1} = r_k - H (A r_k), u = sum A r_k."""
        alpha = self._alpha(condition)
        rest, term = cotangent, times(cotangent, alpha)
        adjoint, size = term, dot(rest, term)
        growing = torch.zeros_like(size, dtype=torch.bool)
        for _ in range(self.terms - 1):
            rest = add_scaled(rest, -1.0, condition.hvp(term))
            term = times(rest, alpha)
            adjoint = add_scaled(adjoint, 1.0, term)
            before, size = size, dot(rest, term)
            growing = grown(before, size)
        code = code_where(growing, Outcome.DIVERGED, 0)
        return LinearSolution(adjoint, Info(products=self.terms, code=code))

    def energy(self, condition: Condition, rest: Tensors) -> Tensor:
        """``r^T A r``, in which I - H A contracts wherever the series converges."""
        return dot(rest, times(rest, self._alpha(condition)))

    def _alpha(self, condition: Condition) -> tuple[float | Tensor, ...]:
        if self.alpha is None:
            return condition.learning_rate
        return (self.alpha,) * len(condition.params)
