"""`Dense`: the materialized Hessian, as a reference for small problems."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.errors import MethodError
from mlo.hypergradients.fields import check_number, check_whole
from mlo.hypergradients.implicit import Implicit
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import flat, unflat, widened

if TYPE_CHECKING:
    from mlo.condition import Condition
    from mlo.graph import DependencyGraph
    from mlo.problem import Problem


@register("dense")
@dataclasses.dataclass(frozen=True)
class Dense(Implicit):
    r"""Solves ``(H + damping I) u = v`` with the Hessian written out.

    Cost: one product per parameter, then O(n^3). Memory: n^2 numbers. No bias beyond rounding. It
    serves to check other methods and for problems of up to some thousand parameters. A singular
    Hessian gives an adjoint of NaN and the outcome `singular`, never a number that looks right.

    Args:
        damping: added to the diagonal of H.
        tolerance: relative residual within which the outcome counts as converged.
        limit: most parameters it takes on.
    """

    symmetric: ClassVar[bool] = False

    damping: float = 0.0
    tolerance: float = 1e-6
    limit: int = 5000

    def __post_init__(self) -> None:
        check_number(self, "damping")
        check_number(self, "tolerance")
        check_whole(self, "limit", least=1)

    def check_place(self, problem: Problem, graph: DependencyGraph) -> None:
        """Refuse problems that are too large."""
        self.check_size(problem.name, graph.nodes[problem.name].size)

    def check_size(self, problem: str, size: int) -> None:
        """Refuse to write out the Hessian of a problem with more than `limit` parameters.

        Raises:
            MethodError: `size` is larger.
        """
        if size > self.limit:
            raise MethodError(
                f"problem '{problem}': hypergradient=Dense would write out {size} x {size} "
                f"numbers, more than Dense(limit={self.limit}) allows; use ConjugateGradient or "
                "Neumann, or raise the limit",
                problem=problem,
            )

    def work(self, size: int) -> int:
        """One product a parameter, and one at the end; the factors serve for all later solves."""
        return size + 1

    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Factorize once at a point, then substitute."""
        v = flat(cotangent)
        size = v.numel()
        self.check_size(condition.problem, size)
        made = condition.memory.factors is None
        if made:
            condition.memory.factors = self._factorized(condition, v, cotangent)
        factors, order = condition.memory.factors
        pivots = factors.diagonal().abs()
        singular = pivots.min() <= size * torch.finfo(v.dtype).eps * pivots.max()
        solution = torch.linalg.lu_solve(factors, order, widened(v)[:, None])[:, 0].to(v.dtype)
        # Zero answers zero, whatever the Hessian.
        solution = torch.where(singular, torch.where((v != 0).any(), torch.nan, v), solution)
        code = code_where(singular, Outcome.SINGULAR, 0)
        return LinearSolution(
            unflat(solution, cotangent), Info(products=made * size + 1, code=code)
        )

    def _factorized(self, condition: Condition, v: Tensor, like: Tensors) -> tuple[Tensor, Tensor]:
        """LU factors of H + damping I, column by column: those of a point serve all its solves.

        In float32 or better: there is no factorization in half precision.
        """
        unit = torch.eye(v.numel(), dtype=v.dtype, device=v.device)
        columns = [flat(condition.hvp(unflat(e, like))) for e in unit]
        matrix = torch.stack(columns, dim=1) + self.damping * unit
        factors, order, _ = torch.linalg.lu_factor_ex(widened(matrix))
        return factors, order
