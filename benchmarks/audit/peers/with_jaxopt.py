"""jaxopt: implicit differentiation by `custom_root`, which nests."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax_losses import middle_loss, quadratic
from jaxopt import implicit_diff, linear_solve
from serving import serve

SOLVERS = {"cg": "solve_cg", "normal cg": "solve_normal_cg", "lu": "solve_lu"}


def run(problem, method, settings):
    """`custom_root` around solvers that return the known solutions."""
    solver = functools.partial(getattr(linear_solve, SOLVERS[method]), **settings)
    root = functools.partial(implicit_diff.custom_root, solve=solver)
    if problem["kind"] == "curved":
        return curved(problem, root)
    if problem["kind"] == "three levels":
        return three_levels(problem, root)
    lower, upper, x = quadratic(problem)
    solve = root(jax.grad(lower))(lambda start, x: jnp.array(problem["w"]))
    return jax.grad(lambda x: upper(solve(None, x), x))(x).tolist(), {}


def curved(problem, root):
    """First and second derivative of w(x)^2."""
    solve = root(lambda w, x: w**3 - x**2)(lambda start, x: jnp.array(problem["w"]))
    first = jax.grad(lambda x: solve(None, x) ** 2)
    return [first(problem["x"]), jax.grad(first)(problem["x"])], {}


def three_levels(problem, root):
    """`custom_root` within the optimality condition of another `custom_root`."""
    kappa = problem["kappa"]

    @root(lambda z, y, x: z + kappa * z**3 - 2 * y - x)
    def lowest(start, y, x):
        return jnp.array(problem["z"])

    @root(jax.grad(lambda y, x: middle_loss(y, lowest(None, y, x), x)))
    def middle(start, x):
        return jnp.array(problem["y"])

    def top(x):
        y = middle(None, x)
        return (y - 1) ** 2 / 2 + (lowest(None, y, x) - 1) ** 2 / 2

    return [jax.grad(top)(problem["x"])], {}


if __name__ == "__main__":
    serve(run, ["jaxopt", "jax", "jaxlib", "numpy"])
