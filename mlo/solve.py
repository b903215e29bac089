r"""Linear solves with the Hessian of a condition, and how they are differentiated themselves.

u = solve(H, v) with H = dg/dw has the derivative of an inverse: for a cotangent u_bar,

    z = solve(H, u_bar),    v_bar = z,    (w, c)_bar = -d<z, H(w, c) u> / d(w, c)

so the backward of a solve is a solve, and nests as deep as autograd asks for. H is symmetric
wherever g is a gradient.

For a problem y above one that answers by z(y), this is the matrix-free product with the Hessian
of the reduced objective: this backward is the tangent solve, the last term is the product of the
Lagrangian, and the backward of the response z(y) is the adjoint solve. Two solves a product, and
no matrix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from mlo.records import Info
from mlo.types import PartialTensors, Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition


@dataclasses.dataclass(frozen=True)
class LinearSolution:
    """An adjoint u and how it was found."""

    adjoint: Tensors
    info: Info = dataclasses.field(default_factory=Info)


LinearSolver: TypeAlias = "Callable[[Condition, Tensors], LinearSolution]"
"""solver(condition, v) -> u with ``(dg/dw)^T u = v``; called without a graph."""


def differentiable_solve(condition: Condition, solver: LinearSolver, v: Tensors) -> LinearSolution:
    """Solve with a graph, so that the result can be differentiated again."""
    found: list[Info] = []
    adjoint = _LinearSolve.apply(  # type: ignore[no-untyped-call]
        condition, solver, found, len(v), *v, *condition.params, *condition.context
    )
    return LinearSolution(tuple(adjoint), found[0])


class _LinearSolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, condition: Condition, solver: LinearSolver, found: list[Info], n: int, *t: Tensor
    ) -> Tensors:
        v, params, context = t[:n], t[n : 2 * n], t[2 * n :]
        solution = solver(condition.at(params, context), v)
        found.append(solution.info)
        ctx.condition, ctx.solver, ctx.n = condition, solver, n
        ctx.save_for_backward(*params, *context, *solution.adjoint)
        return solution.adjoint

    @staticmethod
    def backward(ctx: Any, *u_bar: Tensor) -> tuple[Any, ...]:
        n = ctx.n
        saved: Tensors = ctx.saved_tensors
        params, context, u = saved[:n], saved[n : len(saved) - n], saved[len(saved) - n :]
        condition: Condition = ctx.condition.at(params, context)
        tangent = condition.solve(ctx.solver, u_bar)
        condition.memory.report(tangent.info)
        gradient: PartialTensors = (None,) * (n + len(context))
        if any(ctx.needs_input_grad[4 + n :]):  # not where the solution counts as linear
            gradient = condition.curvature_vjp(u, tangent.adjoint)
        grads = (None if g is None else -g for g in gradient)
        return (None, None, None, None, *tangent.adjoint, *grads)
