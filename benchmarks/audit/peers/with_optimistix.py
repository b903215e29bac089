"""optimistix: root finding with implicit adjoints, which nests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import lineax
import optimistix
from jax_losses import middle_loss, quadratic
from serving import serve


def run(problem, method, settings):
    """Root finding that begins at the known solutions."""
    solver = lineax.CG(rtol=1e-12, atol=1e-12, **settings) if method == "cg" else lineax.LU()
    tags = lineax.positive_semidefinite_tag if method == "cg" else ()
    adjoint = optimistix.ImplicitAdjoint(linear_solver=solver)
    newton = optimistix.Newton(rtol=1e-13, atol=1e-13)

    def root(condition, start, args):
        found = optimistix.root_find(
            condition, newton, jnp.array(start), args, adjoint=adjoint, tags=frozenset({tags})
        )
        return found.value

    if problem["kind"] == "curved":
        return curved(problem, root)
    if problem["kind"] == "three levels":
        return three_levels(problem, root)
    lower, upper, x = quadratic(problem)
    slope = jax.grad(lower)
    return jax.grad(lambda x: upper(root(slope, problem["w"], x), x))(x).tolist(), {}


def curved(problem, root):
    """First and second derivative of w(x)^2."""
    first = jax.grad(lambda x: root(lambda w, x: w**3 - x**2, problem["w"], x) ** 2)
    return [first(problem["x"]), jax.grad(first)(problem["x"])], {}


def three_levels(problem, root):
    """A root whose condition contains the derivative of another root."""
    kappa = problem["kappa"]

    def lowest(y, x):
        condition = lambda z, pull: z + kappa * z**3 - pull  # noqa: E731
        return root(condition, problem["z"], 2 * y + x)

    def top(x):
        total = jax.grad(lambda y, x: middle_loss(y, lowest(y, x), x))
        y = root(total, problem["y"], x)
        return (y - 1) ** 2 / 2 + (lowest(y, x) - 1) ** 2 / 2

    return [jax.grad(top)(problem["x"])], {}


if __name__ == "__main__":
    serve(run, ["optimistix", "lineax", "jax", "jaxlib", "numpy"])
