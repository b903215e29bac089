"""The audit's own truth: numpy formulas against differences, definitions and torch's optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.audit import reference, three_levels
from benchmarks.audit.problems import LARGEST, problems
from benchmarks.audit.unrolled import hypergradient

PROBLEMS = problems()
QUADRATIC = PROBLEMS["quadratic"]
A, B, b, t, x, w, start = (
    np.array(QUADRATIC[name]) for name in ("A", "B", "b", "t", "x", "w", "start")
)
RATE = 0.15


def derivative(function, at, step=1e-6):
    """Central differences."""
    return np.array(
        [(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))]
    )


def off(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_the_hypergradient_is_the_difference_of_the_problem_solved_again():
    def upper(x):
        return 0.5 * np.sum((np.linalg.solve(A, B @ x + b) - t) ** 2)

    assert off(reference.solution(QUADRATIC), derivative(upper, x)) < 1e-8


def test_a_direct_part_and_two_parts_are_in_the_hypergradient():
    plain = reference.solution(QUADRATIC)
    np.testing.assert_allclose(reference.solution(PROBLEMS["summed above"]), plain + 1.0)
    np.testing.assert_allclose(reference.solution(PROBLEMS["two vectors"]), [*plain, *plain])
    assert np.linalg.norm(reference.solution(PROBLEMS["answered"])) < 1e-12


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if p["kind"] == "quadratic"])
def test_every_quadratic_stands_at_its_solution(name):
    A, B, b, x, w = (np.array(PROBLEMS[name][key]) for key in ("A", "B", "b", "x", "w"))
    assert np.abs(A @ w - B @ x - b).max() < 1e-12
    assert np.array_equal(A, A.T)


def test_the_curvatures_are_those_that_the_page_tells():
    values = np.linalg.eigvalsh(A)
    np.testing.assert_allclose([values[0], values[-1]], [1.0, LARGEST])


@pytest.mark.parametrize("iterations", range(1, 7))
def test_conjugate_gradients_are_best_in_their_krylov_space(iterations):
    found = reference.conjugate_gradients(QUADRATIC, iterations)
    assert off(found, reference.krylov(QUADRATIC, iterations)) < 1e-9


@pytest.mark.parametrize("iterations", range(1, 7))
def test_the_smallest_residual_is_smallest(iterations):
    best = reference.krylov(QUADRATIC, iterations, residual=True)
    rest = np.linalg.norm(w - t - A @ best)
    other = np.linalg.norm(w - t - A @ reference.krylov(QUADRATIC, iterations))
    assert rest <= other * (1 + 1e-9) + 1e-12
    powers = [np.linalg.matrix_power(A, k + 1) @ (w - t) for k in range(iterations)]
    assert max(abs(p @ (w - t - A @ best)) / np.linalg.norm(p) for p in powers) < 1e-9


@pytest.mark.parametrize(("terms", "alpha"), [(1, 0.1), (11, RATE), (100, RATE), (20, 1.0)])
def test_the_series_is_that_of_each_eigenvector(terms, alpha):
    values, vectors = np.linalg.eigh(A)
    factor = (1 - (1 - alpha * values) ** terms) / values
    expected = vectors @ (factor * (vectors.T @ (w - t)))
    assert off(reference.neumann(QUADRATIC, terms, alpha), expected) < 1e-12


def test_damping_shifts_the_eigenvalues():
    values, vectors = np.linalg.eigh(A)
    expected = vectors @ ((vectors.T @ (w - t)) / (values + 0.3))
    assert off(reference.damped(QUADRATIC, 0.3), expected) < 1e-12


def through_torch(optimizer, steps):
    """F after steps of torch's own optimizer, as a function of x."""
    matrix, target = torch.from_numpy(A), torch.from_numpy(t)

    def loss(x):
        params = torch.nn.Parameter(torch.from_numpy(start.copy()))
        stepper = getattr(torch.optim, optimizer)([params], lr=RATE)
        for _ in range(steps):
            params.grad = matrix @ params.detach() - torch.from_numpy(B @ x + b)
            stepper.step()
        return float(0.5 * (params.detach() - target).square().sum())

    return loss


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_unrolled_steps_are_those_of_torch(optimizer):
    found = hypergradient(QUADRATIC, optimizer, 5, RATE)
    assert off(found, derivative(through_torch(optimizer, 5), x, 1e-5)) < 1e-7


def test_tracked_steps_are_the_truncated_recurrence():
    steps, tracked = 40, 7
    at, jacobian = start, np.zeros((6, 4))
    for count in range(steps):
        at = at - RATE * (A @ at - B @ x - b)
        if count >= steps - tracked:
            jacobian = jacobian - RATE * (A @ jacobian - B)
    found = hypergradient(QUADRATIC, "SGD", steps, RATE, tracked)
    assert off(found, jacobian.T @ (at - t)) < 1e-13
    assert off(found, hypergradient(QUADRATIC, "SGD", steps, RATE)) > 1e-3


def test_long_unrolls_reach_the_solution():
    assert off(hypergradient(QUADRATIC, "SGD", 300, RATE), reference.solution(QUADRATIC)) < 1e-12


@pytest.mark.parametrize("kappa", [0.0, 0.05, 0.5, 2.0])
def test_three_levels_are_the_difference_of_both_lower_ones_solved_again(kappa):
    def upper(x):
        y, z = three_levels.solve(float(x[0]), kappa)
        return (y - 1) ** 2 / 2 + (z - 1) ** 2 / 2

    data = three_levels.problem(2.0, kappa)
    exact = three_levels.hypergradients(data)["exact"]
    assert abs(exact - derivative(upper, np.array([2.0]), 1e-5)[0]) < 1e-8
    assert abs(three_levels.total_gradient(data["y"], data["z"], 2.0, kappa)) < 1e-13


def test_three_levels_without_kappa_are_those_computed_by_hand():
    data = three_levels.problem(2.0, 0.0)
    found = three_levels.hypergradients(data)
    expected = {"exact": 0.4, "projected": 0.4, "partial": -0.8, "routes": -1.2}
    assert found == pytest.approx(expected, abs=1e-14)
    at_minimum = three_levels.hypergradients(three_levels.problem(three_levels.MINIMUM, 0.0))
    assert abs(at_minimum["exact"]) < 1e-15


def test_the_middle_level_is_at_a_minimum_of_its_total_loss():
    kappa, x = 0.5, 2.0
    y, _ = three_levels.solve(x, kappa)

    def middle(y):
        return (y - x) ** 2 / 2 + three_levels.lowest(2 * y + x, kappa) ** 2 / 2

    assert all(middle(y) < middle(y + shift) for shift in (-0.5, -1e-3, 1e-3, 0.5))


def test_curved_has_the_derivatives_of_its_minimum():
    problem = PROBLEMS["curved"]
    at = problem["x"]

    def upper(x):
        return np.cbrt(x**2) ** 2  # w^3 = x^2

    first = (upper(at + 1e-5) - upper(at - 1e-5)) / 2e-5
    second = (upper(at + 1e-3) - 2 * upper(at) + upper(at - 1e-3)) / 1e-6
    np.testing.assert_allclose(reference.solution(problem), [first, second], rtol=1e-6)
    assert problem["w"] ** 3 == at**2
