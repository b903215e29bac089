"""Minimal residuals on singular systems: the shortest solution, or a name where there is none."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mlo import Minres, Outcome
from mlo.hypergradients import minres

from .preconditioned import Given, chosen, right_side
from .quadratics import answer, relative, symmetric


def singular(n, seed, zeros=1, *, compatible=True, kind=None):
    """A singular matrix, a right-hand side, and the shortest least-squares solution in M's norm."""
    eigenvalues = torch.linspace(-1, 2, n) + 0.05
    eigenvalues[2 : 2 + zeros] = 0.0
    matrix, vectors = symmetric(eigenvalues.tolist(), seed=seed)
    v = right_side(n, seed)
    if compatible:
        null = vectors[:, 2 : 2 + zeros]
        v = v - null @ (null.T @ v)
    inverse, preconditioner = chosen(kind, n)
    half = torch.linalg.cholesky(inverse)
    shortest = half @ torch.linalg.pinv(half.T @ matrix @ half, rtol=1e-12) @ (half.T @ v)
    return matrix, v, shortest, preconditioner


@pytest.mark.parametrize("kind", [None, "given"])
@pytest.mark.parametrize("zeros", [1, 3])
@pytest.mark.parametrize(("n", "seed"), [(6, 0), (9, 1), (12, 2), (20, 3)])
def test_a_singular_system_with_a_solution_is_answered_by_the_shortest(n, seed, zeros, kind):
    matrix, v, shortest, preconditioner = singular(n, seed, zeros, kind=kind)
    method = Minres(iterations=200, tolerance=1e-9, preconditioner=preconditioner)
    found, info = answer(method, matrix, v)
    assert info.outcome is Outcome.CONVERGED
    # The smallest eigenvalue that is not zero is 0.05 or above; M has condition 300.
    assert relative(found, shortest) < (1e-7 if kind is None else 1e-4)


@pytest.mark.parametrize(
    ("n", "seed", "kind"),
    [
        *[(n, seed, None) for n, seed in ((6, 0), (9, 1), (20, 2), (60, 3))],
        *[(n, seed, "given") for n, seed in ((6, 0), (9, 1), (20, 2))],
    ],
)
@pytest.mark.parametrize("zeros", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_singular_system_without_a_solution_is_named_and_the_rest_that_of_least_squares(
    dtype, n, seed, zeros, kind
):
    matrix, v, shortest, preconditioner = singular(n, seed, zeros, compatible=False, kind=kind)
    if preconditioner is not None:
        preconditioner = Given(preconditioner.inverse.to(dtype))
    method = Minres(iterations=500, preconditioner=preconditioner)
    found, info = answer(method, matrix.to(dtype), v.to(dtype))
    assert info.outcome is Outcome.SINGULAR
    assert info.outcome.failed
    assert found.isfinite().all()
    if kind is None:
        least = float((v - matrix @ shortest).norm() / v.norm())
        assert least <= float(info.residual) * (1 + 1e-5)
        assert float(info.residual) < 1.05 * least
    # Stopped before it shows, nothing is claimed.
    early = dataclasses.replace(method, iterations=3)
    assert answer(early, matrix.to(dtype), v.to(dtype))[1].outcome is Outcome.LIMIT


@pytest.mark.parametrize("damping", [0.0, 2.0])
def test_a_hessian_that_the_damping_cancels_is_singular(damping):
    matrix = -damping * torch.eye(5)
    _, info = answer(Minres(damping=damping), matrix, right_side(5))
    assert info.outcome is Outcome.SINGULAR
    assert float(info.residual) == 1.0


@pytest.mark.parametrize("scale", [None, 1e-12, 1e12])
def test_an_eigenvalue_that_is_nearly_zero_is_no_singularity(scale):
    # Condition 1e10: half of the digits are left. How long M is does not matter.
    matrix, _ = symmetric([1e-10, 1.0, 2.0, -3.0])
    v = right_side(4)
    preconditioner = None if scale is None else Given(scale * torch.eye(4))
    method = Minres(iterations=100, tolerance=1e-4, preconditioner=preconditioner)
    found, info = answer(method, matrix, v)
    assert info.outcome is Outcome.CONVERGED
    assert relative(found, torch.linalg.solve(matrix, v)) < 1e-4
    matrix, _ = symmetric([0.0, 1.0, 2.0, -3.0])
    assert answer(method, matrix, v)[1].outcome is Outcome.SINGULAR


@pytest.mark.parametrize("case", ["converged", "singular"])
def test_iterations_after_the_end_change_nothing(case, monkeypatch):
    """As on an accelerator, which is not asked whether it is done."""
    if case == "converged":
        matrix, v = symmetric([1.0, 2.0, 3.0, -4.0, 5.0, -6.0, 0.5, 7.0])[0], right_side(8)
    else:
        matrix, v, _, _ = singular(9, 1, compatible=False)
    stopped, info = answer(Minres(iterations=60), matrix, v)
    monkeypatch.setattr(minres, "idle", lambda active: False)
    found, same = answer(Minres(iterations=60), matrix, v)
    assert torch.equal(found, stopped)
    assert (same.outcome, int(same.products)) == (info.outcome, int(info.products))
    assert int(info.products) < 60
