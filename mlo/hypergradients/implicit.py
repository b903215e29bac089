"""What all methods share that solve a linear system with the Hessian."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mlo.errors import MethodError
from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.records import Info, Outcome, code_of, code_where, has_failed
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, finite, negative, norm, shapes

if TYPE_CHECKING:
    from mlo.condition import Condition

RUNAWAY = 10.0
"""A relative residual above which a solver whose residual may grow counts as diverged, too."""


class Implicit(Hypergradient):
    r"""The implicit function theorem at the present parameters, with a linear solver of one's own.

        c_bar = -(dg/dc)^T u,    (H + damping I) u = v,    H = dg/dw

    A subclass writes `solve`. The residual that is reported is measured, not carried along: the
    product H u is taken in the same call as the mixed product.
    """

    differentiable: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    """Whether `energy` shrinks from iteration to iteration where the solver converges."""

    symmetric: ClassVar[bool] = True
    """Whether `solve` takes dg/dw to be symmetric; problems that read each other have no such."""

    damping: float = 0.0
    tolerance: float = 1e-6

    @abc.abstractmethod
    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Return u with ``(H + damping I) u = cotangent``, made of `condition.hvp`."""

    def solve_with_state(
        self, condition: Condition, cotangent: Tensors, state: State
    ) -> tuple[LinearSolution, State]:
        """`solve`, for a method that remembers something from one call to the next.

        It is asked by first-order backward passes alone; where a solve is differentiated again
        (nested levels), `solve` is. Default: `solve`, and the state unchanged.

        Returns:
            The solution, and the state after it: a pytree of plain tensors.
        """
        return self.solve(condition, cotangent), state

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """Solve, then take one mixed product."""
        if condition.attached:
            solution = condition.solve(self._measured, cotangent)
            mixed, info = condition.mixed_vjp(solution.adjoint), solution.info
        else:
            solution, state = self.solve_with_state(condition, cotangent, state)
            self._check(solution, condition, cotangent)
            product, mixed = condition.products(solution.adjoint)
            info = self._judged(condition, solution, product, cotangent)
        with torch.no_grad():
            worse = ~finite(mixed) & ~has_failed(info.code)
            code = code_where(worse, Outcome.NONFINITE, info.code)
        return Result(negative(mixed), state, dataclasses.replace(info, code=code))

    def _measured(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Solve, and measure the residual by a product of its own."""
        solution = self.solve(condition, cotangent)
        self._check(solution, condition, cotangent)
        product = condition.hvp(solution.adjoint)
        info = self._judged(condition, solution, product, cotangent)
        return LinearSolution(solution.adjoint, info)

    def _check(self, found: object, condition: Condition, cotangent: Tensors) -> None:
        """`solve` returned what it must."""
        expected = shapes(cotangent)
        given = shapes(found.adjoint) if isinstance(found, LinearSolution) else type(found).__name__
        if given != expected:
            raise MethodError(
                f"problem '{condition.problem}': hypergradient={type(self).__name__}, solve() must "
                f"return a LinearSolution with tensors of shapes {expected}, got {given}",
                problem=condition.problem,
            )

    def energy(self, condition: Condition, rest: Tensors) -> Tensor:
        """A square norm of the rest ``v - H u``: grown beyond that of v, it means divergence."""
        return dot(rest, rest)

    def _judged(
        self,
        condition: Condition,
        solution: LinearSolution,
        product: Tensors,
        v: Tensors,
    ) -> Info:
        """Measure the residual and name the outcome; what the solver reported goes first."""
        damped = add_scaled(product, self.damping, solution.adjoint)
        size = norm(v)
        safe = torch.where(size > 0, size, torch.ones_like(size))
        rest = add_scaled(v, -1.0, damped)
        residual = norm(rest) / safe
        code = code_where(residual <= self.tolerance, Outcome.CONVERGED, code_of(Outcome.LIMIT))
        if self.monotone:
            more = grown(self.energy(condition, v), self.energy(condition, rest))
        else:  # it may grow on the way, by the root of the condition number at most
            more = residual > RUNAWAY
        code = code_where(more, Outcome.DIVERGED, code)
        sound = residual.isfinite()
        code = code_where(~sound, Outcome.NONFINITE, code)
        reported = torch.as_tensor(solution.info.code, device=code.device)
        code = torch.where(reported > 0, reported, code)
        code = code_where((size == 0) & sound, Outcome.ZERO, code)
        return dataclasses.replace(solution.info, residual=residual, code=code)


def grown(before: Tensor, after: Tensor) -> Tensor:
    """Whether a quantity has grown by more than rounding: a rest in the null space only stays."""
    return after > before * (1.0 + 1e3 * torch.finfo(before.dtype).eps)
