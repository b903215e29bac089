"""`Neumann`: a truncated series for the inverse Hessian."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.errors import ConfigurationError
from mlo.hypergradients.fields import check_flag, check_number, check_whole
from mlo.hypergradients.implicit import grown
from mlo.hypergradients.iterative import Iterative
from mlo.hypergradients.preconditioners import (
    Apply,
    Preconditioner,
    Preconditioning,
    find_preconditioner,
    identity,
)
from mlo.hypergradients.registry import register
from mlo.hypergradients.spectral_bound import spectral_bound
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, times

if TYPE_CHECKING:
    from mlo.condition import Condition

Rates = tuple[float | Tensor, ...]


@register("neumann")
@dataclasses.dataclass(frozen=True)
class Neumann(Iterative):
    r"""The first `terms` terms of the Neumann series of H^{-1}.

        u = sum_{k=0}^{terms-1} (I - B H)^k B v,    B = A, or with a preconditioner A M^{-1}

    with A = alpha I, or (default) the diagonal of the problem's own learning rates, for which the
    series converges wherever gradient descent at these rates does. (Where M^{-1} and these do not
    commute, B is A^{1/2} M^{-1} A^{1/2}.)

    Cost: `terms` products, about 2 gradient evaluations each, after one for the shared graph; what
    a preconditioner takes, `power_iterations` for `alpha="auto"`, and one for a warm start. Memory:
    3 vectors of the parameters' size, one more that a warm start remembers. Bias: error
    (1 - alpha mu)^terms relative to the solution along an eigenvector of M^{-1} H with eigenvalue
    mu; it converges if and only if 0 < mu < 2 / alpha for every eigenvalue. Otherwise it diverges,
    and the outcome says so once the last rest has grown or the residual is larger than the
    right-hand side. A warm start makes the series a correction of the first guess, so that the
    error falls from call to call where the system hardly changes (Richardson's iteration).

    With `alpha="auto"` alpha is 1 / L, with L an upper bound of |mu| by the power method (see
    `mlo.hypergradients.spectral_bound`), taken anew at each point. For a positive definite H the
    series then converges, however stiff; L is too small for that with a probability below
    0.01 / 2^power_iterations. It is a cautious step: L may be 2 to 3 times too large, which costs
    as many times more terms; more `power_iterations` make it sharper. Of an indefinite H, L bounds
    the largest |mu|, and the series diverges along the negative ones, which is named. Of problems
    that read each other the Jacobian has complex eigenvalues, which L bounds as well, but the
    series converges only where |1 - mu / L| < 1 for all: not near the imaginary axis.

    Sources: Lorraine, Vicol, Duvenaud, AISTATS 2020, algorithm 3; Dixon, SIAM J. Numer. Anal. 20,
    1983 (the bound).

    Args:
        terms: terms of the series; 1 gives u = alpha v.
        alpha: step of the series; `None` takes the optimizer's learning rates, `"auto"` 1 / L.
        tolerance: relative residual at which the outcome counts as converged.
        preconditioner: M near H: `"diagonal"`, `"nystrom"`, `"optimizer"`, an instance such as
            `Diagonal(probes=4)`, or `None` for none.
        warm_start: begin from the adjoint that was found last.
        power_iterations: products that `alpha="auto"` takes at each point.
        seed: of the random start of these.
    """

    terms: int = 10
    alpha: float | str | None = None
    tolerance: float = 1e-6
    preconditioner: str | Preconditioner | None = None
    warm_start: bool = False
    power_iterations: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "terms", least=1)
        check_whole(self, "power_iterations", least=1)
        check_whole(self, "seed", least=0)
        check_number(self, "tolerance")
        check_flag(self, "warm_start")
        find_preconditioner(self.preconditioner)
        if isinstance(self.alpha, str) and self.alpha != "auto":
            raise ConfigurationError(
                "Neumann(alpha=...) must be a positive number, 'auto' or None (the optimizer's "
                f"learning rates), got {self.alpha!r}"
            )
        if self.alpha is not None and self.alpha != "auto":
            check_number(self, "alpha", positive=True)

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """As the preconditioner asks; the series does without."""
        chosen = find_preconditioner(self.preconditioner)
        return chosen is not None and chosen.symmetric

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Without `alpha`, the optimizer's learning rates."""
        return super().needs | ({"learning_rate"} if self.alpha is None else frozenset())

    def work(self, size: int) -> int:
        """One product a term, and those of the power method."""
        powers = self.power_iterations if self.alpha == "auto" else 0
        return self.terms - 1 + powers + self.overhead(size)

    def prepare(self, condition: Condition) -> Preconditioning:
        """B at a new point."""
        ready = super().prepare(condition)
        count, products = len(condition.params), ready.products
        if self.alpha is None:
            rates: Rates = condition.learning_rate
        elif isinstance(self.alpha, str):
            rates = (self._auto(condition, ready.apply),) * count
            products += self.power_iterations
        else:
            rates = (self.alpha,) * count
        return Preconditioning(_scaled(ready.apply, rates), products)

    def iterate(
        self, condition: Condition, rest: Tensors, *, apply: Apply, target: Tensor
    ) -> LinearSolution:
        """Sum the series: r_{k+1} = r_k - H (B r_k), u = sum B r_k; `target` ends nothing."""
        term = apply(rest)
        adjoint, size = term, dot(rest, term)
        growing = torch.zeros_like(size, dtype=torch.bool)
        for _ in range(self.terms - 1):
            rest = add_scaled(rest, -1.0, condition.hvp(term))
            term = apply(rest)
            adjoint = add_scaled(adjoint, 1.0, term)
            before, size = size, dot(rest, term)
            growing = grown(before, size)
        code = code_where(growing, Outcome.DIVERGED, 0)
        return LinearSolution(adjoint, Info(products=self.terms - 1, code=code))

    def _auto(self, condition: Condition, apply: Apply) -> Tensor:
        """1 / L, or 0 where H is zero: nothing is the least that can be answered there."""
        bound = spectral_bound(
            lambda x: condition.hvp(apply(x)), condition.params, self.power_iterations, self.seed
        )
        zero = bound == 0
        return torch.where(zero, bound, torch.where(zero, 1.0, bound).reciprocal())


def _scaled(apply: Apply, rates: Rates) -> Apply:
    """B = A, or A^{1/2} M^{-1} A^{1/2}."""
    if apply is identity:
        return lambda v: times(v, rates)
    roots = tuple(rate**0.5 for rate in rates)
    return lambda v: times(apply(times(v, roots)), roots)
