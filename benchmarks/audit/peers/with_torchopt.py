"""torchopt: implicit differentiation by `custom_root`, and its differentiable optimizers."""

from __future__ import annotations

import torch
import torchopt
from losses import Quadratic
from serving import serve
from torchopt import linear_solve

SOLVERS = {"cg": "solve_cg", "normal cg": "solve_normal_cg", "inverse": "solve_inv"}
OPTIMIZERS = {"SGD": "MetaSGD", "Adam": "MetaAdam", "AdamW": "MetaAdamW"}


def run(problem, method, settings):
    """Implicit where `method` names a linear solver, unrolled where it names an optimizer."""
    if problem["kind"] == "curved":
        return curved(problem, method)
    if problem["kind"] == "three levels":
        return three_levels(problem, method)
    if method in SOLVERS:
        return implicit(problem, method, settings)
    return unrolled(problem, method, settings)


def implicit(problem, method, settings):
    """`custom_root` around a solver that returns the known solution."""
    quad = Quadratic(problem)
    slope = torch.func.grad(quad.lower)

    @torchopt.diff.implicit.custom_root(slope, argnums=1, solve=_solver(method, **settings))
    def solve(w, x):
        return w

    x = quad.x.clone().requires_grad_()
    with quad.counting() as counting:
        w = solve(quad.w.clone(), x)
        (gradient,) = torch.autograd.grad(quad.upper(w, x), x)
    return gradient.tolist(), quad.report(counting, w)


def unrolled(problem, method, settings):
    """Steps of a meta optimizer on a module, as its tutorials do."""
    quad = Quadratic(problem)
    x = quad.x.clone().requires_grad_()
    lower = torch.nn.Module()
    lower.w = torch.nn.Parameter(quad.start.clone())
    optimizer = getattr(torchopt, OPTIMIZERS[method])(lower, lr=settings["rate"])
    with quad.counting() as counting:
        for _ in range(settings["steps"]):
            optimizer.step(quad.lower(lower.w, x))
        (gradient,) = torch.autograd.grad(quad.upper(lower.w, x), x)
    return gradient.tolist(), {"costs": quad.report(counting, quad.w)["costs"]}


def curved(problem, method):
    """First and second derivative of w(x)^2, w from its optimality condition."""

    @torchopt.diff.implicit.custom_root(lambda w, x: w**3 - x**2, argnums=1, solve=_solver(method))
    def solve(w, x):
        return w

    x = torch.tensor([problem["x"]], requires_grad=True)
    w = solve(torch.tensor([problem["w"]]), x)
    (first,) = torch.autograd.grad((w**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    return [float(first), float(second)], {}


def three_levels(problem, method):
    """`custom_root` within the optimality condition of another `custom_root`."""
    kappa = problem["kappa"]

    @torchopt.diff.implicit.custom_root(
        lambda z, y, x: z + kappa * z**3 - 2 * y - x, argnums=(1, 2), solve=_solver(method)
    )
    def lowest(z, y, x):
        return torch.tensor([problem["z"]])

    def middle_loss(y, x):
        return ((y - x) ** 2 / 2 + lowest(torch.zeros(1), y, x) ** 2 / 2).sum()

    @torchopt.diff.implicit.custom_root(
        torch.func.grad(middle_loss), argnums=1, solve=_solver(method)
    )
    def middle(y, x):
        return torch.tensor([problem["y"]])

    x = torch.tensor([problem["x"]], requires_grad=True)
    y = middle(torch.zeros(1), x)
    z = lowest(torch.zeros(1), y, x)
    loss = ((y - 1) ** 2 / 2 + (z - 1) ** 2 / 2).sum()
    return [float(torch.autograd.grad(loss, x)[0])], {}


def _solver(method, **settings):
    return getattr(linear_solve, SOLVERS[method])(**settings)


if __name__ == "__main__":
    serve(run, ["torchopt", "torch"])
