"""`Nystrom`: the Hessian replaced by a low-rank sketch of it, which is inverted exactly."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from mlo.hypergradients.base import Result, State
from mlo.hypergradients.fields import check_number, check_whole
from mlo.hypergradients.implicit import Implicit
from mlo.hypergradients.registry import register
from mlo.hypergradients.sketch import cancels, directions, sketch, solve_sketched
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import norm

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("nystrom")
@dataclasses.dataclass(frozen=True)
class Nystrom(Implicit):
    r"""Solves with a low-rank sketch in the place of the Hessian.

        u = (H_k + damping I)^{-1} v,    H_k = (H X) (X^T H X)^+ (H X)^T

    for `rank` orthonormal directions X (see `mlo.hypergradients.sketch`), by the Woodbury formula.
    It is linear in v, and all solves at a point share one sketch.

    Cost: `rank` products for a sketch, about 2 gradient evaluations each, after one for the shared
    graph; with `refresh=r` a sketch serves r points, also where the problem has moved on. A solve
    costs one product, for the residual, and O(rank) vector operations. Memory: `rank` vectors of
    the parameters' size, kept in the method's state; about 4 `rank` while a sketch is made, for
    which an accelerator is waited for. Bias: that of the damping, and for a positive semidefinite
    H with E = H - H_k

        |u - (H + damping I)^{-1} v| <= |E| / (damping (|E| + damping)) |v|

    and |E| is of the order of the eigenvalues after the first `rank`, a mean over the draws that
    is bounded in Frangella et al., proposition 2.2. It is 0 where `rank` is the number of
    parameters. Directions that the sketch has not seen are divided by `damping` alone, and where
    |E| is the larger of the two the answer may be worse than none. The residual, that of
    ``(H + damping I) u = v`` with the present H, measures what the sketch and its age miss; above
    that of u = 0 the outcome is `diverged`. An indefinite H is inverted with its signs. Where the
    damping cancels a negative eigenvalue of H_k up to rounding, the answer is NaN and the outcome
    `singular`.

    Sources: Hataya and Yamada, AISTATS 2023, who take columns of H, which are unit vectors for X;
    Frangella, Tropp and Udell, SIMAX 2023, algorithm 2.1, for the Gaussian X that is taken here.

    Args:
        rank: directions, and products for a sketch; at most as many as there are parameters.
        damping: added to the diagonal of H_k; positive.
        refresh: points that a sketch serves; 1 makes one at each.
        seed: of the directions, which are the same for every sketch.
        tolerance: relative residual within which the outcome counts as converged.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    rank: int = 10
    damping: float = 0.01
    refresh: int = 1
    seed: int = 0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_whole(self, "rank", least=1)
        check_number(self, "damping", positive=True)
        check_whole(self, "refresh", least=1)
        check_whole(self, "seed", least=0)
        check_number(self, "tolerance")

    def work(self, size: int) -> int:
        """One product a direction, and one at the end; a sketch serves for all later solves."""
        return min(self.rank, size) + 1

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """As every implicit method, with the sketch of the point as the state.

        Args:
            condition: the stationarity condition and its products.
            cotangent: v.
            state: `basis` and `values` of the last sketch and its `age`, the points it has served;
                `None` where there is none.
        """
        memory = condition.memory
        if memory.factors is None and state is not None:
            memory.factors = {**state, "age": state["age"] + 1}
        result = super().vjp(condition, cotangent, state)
        return dataclasses.replace(result, state=memory.factors)

    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Look at the sketch of the point, or make it."""
        kept = condition.memory.factors
        made = kept is None or kept["age"] > self.refresh
        if made:
            kept = condition.memory.factors = self._sketched(condition)
        basis, values = kept["basis"], kept["values"]
        adjoint = solve_sketched(basis, values, self.damping, cotangent)
        singular = cancels(values, self.damping, cotangent)
        # Zero answers zero, whatever the Hessian.
        lost = singular & (norm(cotangent) > 0)
        adjoint = tuple(torch.where(lost, torch.nan, u) for u in adjoint)
        code = code_where(singular, Outcome.SINGULAR, 0)
        return LinearSolution(adjoint, Info(products=made * basis.shape[1] + 1, code=code))

    def _sketched(self, condition: Condition) -> dict[str, Any]:
        """A new sketch; one that is not finite serves this point only."""
        like = condition.params
        tests = directions(like, self.rank, self.seed)
        basis, values = sketch(condition.hvp, like, tests)
        age = 1 if bool(values.isfinite().all()) else self.refresh
        return {"basis": basis, "values": values, "age": age}
