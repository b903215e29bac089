"""Conjugate gradients: exactness, optimality in every Krylov space, and failures by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import mlo
from mlo import ConjugateGradient, Outcome

from .preconditioned import fixed, textbook
from .quadratics import answer, condition_of, relative, split, symmetric

SPECTRA = {
    "one": [2.0] * 6,
    "two": [1.0] * 5 + [7.0] * 3,
    "three": [0.5, 3.0, 3.0, 3.0, 40.0, 40.0],
    "five": [0.1, 1.0, 1.0, 2.0, 5.0, 5.0, 9.0, 9.0],
    "all different": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0],
}


def right_side(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_it_is_exact_after_as_many_iterations_as_there_are_distinct_eigenvalues(spectrum):
    hessian, _ = symmetric(SPECTRA[spectrum])
    v = right_side(len(hessian))
    exact = torch.linalg.solve(hessian, v)
    distinct = len(set(SPECTRA[spectrum]))
    # Rounding, which takes from the orthogonality of the directions at condition number 128.
    found, info = answer(ConjugateGradient(iterations=distinct, tolerance=1e-9), hessian, v)
    assert relative(found, exact) < 1e-9
    assert info.outcome is Outcome.CONVERGED
    # One product for every iteration, and one that measures the residual.
    assert int(info.products) == distinct + 1
    if distinct > 1:
        found, info = answer(ConjugateGradient(iterations=distinct - 1), hessian, v)
        assert relative(found, exact) > 1e-4
        assert info.outcome is Outcome.LIMIT


@pytest.mark.parametrize("damping", [0.0, 1.5])
@pytest.mark.parametrize("iterations", range(1, 8))
def test_every_iterate_is_the_best_of_its_krylov_space(iterations, damping):
    eigenvalues = torch.tensor([0.3, 0.8, 1.7, 2.9, 4.1, 7.3, 11.0, 12.0])
    matrix, _ = symmetric(eigenvalues.tolist())
    v = right_side(8)
    method = ConjugateGradient(iterations=iterations, tolerance=0.0, damping=damping)
    found, info = answer(method, matrix, v)
    damped = matrix + damping * torch.eye(8)
    powers = torch.stack([torch.linalg.matrix_power(damped, k) @ v for k in range(iterations)])
    basis, _ = torch.linalg.qr(powers.T)
    best = basis @ torch.linalg.solve(basis.T @ damped @ basis, basis.T @ v)
    # Powers of the matrix lose up to seven digits in the basis.
    assert relative(found, best) < 1e-8
    # The textbook bound on the error in the norm of the matrix.
    exact = torch.linalg.solve(damped, v)
    error, start = found - exact, exact
    root = ((eigenvalues.max() + damping) / (eigenvalues.min() + damping)) ** 0.5
    bound = 2 * ((root - 1) / (root + 1)) ** iterations
    assert (error @ damped @ error) ** 0.5 <= bound * (start @ damped @ start) ** 0.5
    # The residual is measured on the answer, not carried along.
    measured = (v - damped @ found).norm() / v.norm()
    torch.testing.assert_close(info.residual, measured, rtol=1e-9, atol=1e-15)
    assert info.outcome is Outcome.LIMIT


def test_a_residual_that_grows_on_the_way_is_no_divergence():
    hessian = torch.diag(torch.logspace(0, 4, 10))
    v, exact = torch.ones(10), 1 / hessian.diagonal()
    residuals, errors = [], []
    for iterations in range(1, 10):
        found, info = answer(ConjugateGradient(iterations=iterations), hessian, v)
        residuals.append(float(info.residual))
        errors.append(float((found - exact) @ hessian @ (found - exact)))
        assert info.outcome is Outcome.LIMIT
    assert max(residuals) > 1
    assert errors == sorted(errors, reverse=True)


def test_the_residual_is_true_where_the_carried_one_is_not():
    # Condition number 1e10: the recursion's residual falls far below the true one.
    eigenvalues = torch.logspace(-10, 0, 12).tolist()
    hessian, _ = symmetric(eigenvalues)
    v = right_side(12)
    found, info = answer(ConjugateGradient(iterations=500, tolerance=1e-14), hessian, v)
    measured = (v - hessian @ found).norm() / v.norm()
    assert measured > 1e-11
    torch.testing.assert_close(info.residual, measured, rtol=0.5, atol=0.0)


def test_it_stops_at_the_tolerance():
    hessian, _ = symmetric(torch.linspace(1, 20, 30).tolist())
    v = right_side(30)
    products = []
    for tolerance in (1e-2, 1e-6, 1e-10):
        _, info = answer(ConjugateGradient(iterations=100, tolerance=tolerance), hessian, v)
        assert float(info.residual) <= tolerance * (1 + 1e-6)
        assert info.outcome is Outcome.CONVERGED
        products.append(int(info.products))
    assert products == sorted(set(products))
    assert products[-1] < 32


@pytest.mark.parametrize("method", [ConjugateGradient(), mlo.Dense(), mlo.Neumann()])
@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 3.0, 4.0], [0.0] * 4, [1.0, -1.0, 0.0, 2.0]])
def test_a_zero_right_hand_side_is_answered_by_zero(method, eigenvalues):
    found, info = answer(method, symmetric(eigenvalues)[0], torch.zeros(4))
    assert torch.equal(found, torch.zeros(4))
    assert info.outcome is Outcome.ZERO


# What is wrong with the system -> eigenvalues, right-hand side in the eigenvectors' coordinates.
FAILURES = {
    "negative definite": ([-1.0, -2.0, -3.0, -4.0], [1.0, 1.0, 1.0, 1.0]),
    "indefinite, seen at once": ([3.0, 1.0, -2.0, -5.0], [1.0, 1.0, 1.0, 1.0]),
    "indefinite, seen late": ([5.0, 4.0, 3.0, -0.01], [1.0, 1.0, 1.0, 0.01]),
    "a saddle that cancels": ([1.0, 1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]),
    "singular": ([3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
    "zero": ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_not_positive_definite_is_named_and_the_answer_stays_finite(failure):
    eigenvalues, coordinates = FAILURES[failure]
    hessian, vectors = symmetric(eigenvalues)
    v = vectors @ torch.tensor(coordinates)
    found, info = answer(ConjugateGradient(iterations=50), hessian, v)
    assert found.isfinite().all()
    measured = (v - hessian @ found).norm() / v.norm()
    torch.testing.assert_close(info.residual, measured)
    named = {Outcome.SINGULAR} if failure == "zero" else {Outcome.NEGATIVE_CURVATURE}
    if failure == "singular":  # rounding decides how the lost direction shows
        named.add(Outcome.SINGULAR)
    assert info.outcome in named
    assert measured > 1e-3


@pytest.mark.parametrize("last", [0.0, -2.0])
def test_a_bad_direction_that_the_right_hand_side_does_not_touch_does_no_harm(last):
    hessian = torch.diag(torch.tensor([3.0, 2.0, 1.0, last]))
    v = torch.tensor([1.0, -1.0, 2.0, 0.0])
    found, info = answer(ConjugateGradient(tolerance=1e-12), hessian, v)
    torch.testing.assert_close(found, torch.tensor([1 / 3, -1 / 2, 2.0, 0.0]))
    assert info.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("eigenvalues", [[3.0, 1.0, -2.0, -5.0], [3.0, 2.0, 0.0, 0.0]])
@pytest.mark.parametrize("method", [ConjugateGradient, mlo.Dense])
def test_damping_solves_the_damped_system(method, eigenvalues):
    hessian, _ = symmetric(eigenvalues)
    v = right_side(4)
    found, info = answer(method(damping=6.0, tolerance=1e-12), hessian, v)
    assert relative(found, torch.linalg.solve(hessian + 6.0 * torch.eye(4), v)) < 1e-12
    assert info.outcome is Outcome.CONVERGED
    assert float(info.residual) < 1e-12


@pytest.mark.parametrize("method", [ConjugateGradient(), mlo.Dense(), mlo.Neumann()])
@pytest.mark.parametrize("where", ["right-hand side", "Hessian"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(method, where, bad):
    hessian, v = torch.eye(4), torch.ones(4)
    (v if where == "right-hand side" else hessian[1])[1] = bad
    _, info = answer(method, hessian, v)
    assert info.outcome is Outcome.NONFINITE


def test_it_works_in_single_precision():
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0, 5.0])
    v = right_side(5)
    found, info = answer(ConjugateGradient(tolerance=1e-5), hessian.float(), v.float())
    assert found.dtype is torch.float32
    assert relative(found.double(), torch.linalg.solve(hessian, v)) < 1e-5
    assert info.outcome is Outcome.CONVERGED


def test_one_gradient_graph_serves_all_products():
    condition = condition_of(symmetric([1.0, 2.0, 3.0, 4.0, 5.0])[0])
    calls, objective = [], condition.objective
    condition.objective = lambda w, c: calls.append(1) or objective(w, c)
    with torch.no_grad():
        ConjugateGradient(iterations=5).vjp(condition, split(right_side(5)), None)
    assert len(calls) == 1


PRECONDITIONED = [0.3, 0.8, 1.7, 2.9, 4.1, 7.3, 11.0, 12.0]
MIDDLE = [0.5, 0.5, 1.0, 2.0, 3.0, 6.0, 8.0, 9.0]


@pytest.mark.parametrize("damping", [0.0, 1.5])
@pytest.mark.parametrize("iterations", range(1, 8))
def test_preconditioned_iterates_are_those_of_the_textbook(iterations, damping):
    (hessian, _), (m, _) = symmetric(PRECONDITIONED), symmetric(MIDDLE, seed=4)
    v = right_side(8)
    method = ConjugateGradient(
        iterations=iterations, tolerance=0.0, damping=damping, preconditioner=fixed(m)
    )
    found, info = answer(method, hessian, v)
    damped = (hessian + damping * torch.eye(8)).numpy()
    expected = textbook(damped, v.numpy(), np.linalg.inv(m.numpy()), iterations)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-12)
    assert int(info.products) == iterations + 1
    residual = np.linalg.norm(v.numpy() - damped @ expected) / np.linalg.norm(v.numpy())
    assert float(info.residual) == pytest.approx(residual, rel=1e-9)


def test_preconditioned_it_stops_by_the_euclidean_residual_as_scipy_does():
    hessian, _ = symmetric(torch.logspace(-1, 1, 24).tolist())
    v, (m, _) = right_side(24), symmetric(torch.logspace(-0.5, 0.5, 24).tolist(), seed=9)
    inverse = torch.linalg.inv(m).numpy()
    for tolerance in (1e-2, 1e-5, 1e-9):
        steps = []
        expected, _ = scipy.sparse.linalg.cg(
            hessian.numpy(), v.numpy(), rtol=tolerance, atol=0.0, M=inverse, callback=steps.append
        )
        method = ConjugateGradient(iterations=300, tolerance=tolerance, preconditioner=fixed(m))
        found, info = answer(method, hessian, v)
        assert info.outcome is Outcome.CONVERGED
        assert int(info.products) == len(steps) + 1
        assert relative(found, torch.from_numpy(expected)) < 1e-6
        assert float(info.residual) <= tolerance * (1 + 1e-6)


def test_with_the_hessian_as_preconditioner_one_iteration_is_exact():
    hessian, _ = symmetric(PRECONDITIONED)
    v = right_side(8)
    found, info = answer(ConjugateGradient(preconditioner=fixed(hessian)), hessian, v)
    assert relative(found, torch.linalg.solve(hessian, v)) < 1e-13
    assert int(info.products) == 2


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_iterations_fall_with_the_condition_number_of_the_preconditioned_hessian(spread):
    scale = torch.diag(torch.logspace(-spread / 2, spread / 2, 60))
    core, _ = symmetric(torch.linspace(1.0, 2.0, 60).tolist())
    hessian, v = scale @ core @ scale, right_side(60)
    bare = ConjugateGradient(iterations=600, tolerance=1e-9)
    _, without = answer(bare, hessian, v)
    method = dataclasses.replace(bare, preconditioner=fixed(scale @ scale))
    found, info = answer(method, hessian, v)
    assert relative(found, torch.linalg.solve(hessian, v)) < 1e-6
    # The error in the energy norm is halved at the rate of condition number 2; the Euclidean
    # residual is off from it by the root of the spread of the scales at most.
    rate = (2**0.5 - 1) / (2**0.5 + 1)
    size = float(torch.linalg.cond(hessian)) ** 0.5
    bound = np.log(2 * size / 1e-9) / -np.log(rate)
    assert int(info.products) - 1 <= bound < int(without.products)


def test_the_identity_as_preconditioner_changes_not_one_bit():
    hessian, _ = symmetric(PRECONDITIONED)
    v = right_side(8)
    for iterations in range(1, 9):
        bare = ConjugateGradient(iterations=iterations, tolerance=0.0)
        unit = dataclasses.replace(bare, preconditioner=fixed(torch.eye(8)))
        (a, _), (b, _) = answer(bare, hessian, v), answer(unit, hessian, v)
        assert torch.equal(a, b)


def test_a_preconditioner_that_is_not_definite_is_no_answer_that_looks_right():
    (hessian, _), (m, _) = symmetric(PRECONDITIONED), symmetric(MIDDLE, seed=4)
    found, info = answer(
        ConjugateGradient(iterations=50, preconditioner=fixed(-m)), hessian, right_side(8)
    )
    assert found.isfinite().all()
    assert info.outcome is Outcome.LIMIT
    assert int(info.products) == 1
    assert float(info.residual) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"iterations": 0},
        {"tolerance": -1e-3},
        {"damping": float("nan")},
        {"warm_start": "yes"},
    ],
)
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"ConjugateGradient\({name}=\.\.\.\)"):
        ConjugateGradient(**settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_a_singular_system_without_a_solution_is_named_whatever_rounding_leaves(seed, dtype):
    """The answer is that with the smallest residual, and no longer than what can be solved."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randn(20, 6, generator=draw)
    hessian, v = (low @ low.T).to(dtype), torch.randn(20, generator=draw).to(dtype)
    found, info = answer(ConjugateGradient(iterations=60), hessian, v)
    assert info.outcome in (Outcome.SINGULAR, Outcome.NEGATIVE_CURVATURE)
    assert info.residual <= 1.0
    assert found.norm() < 2.0 * (torch.linalg.pinv(low @ low.T) @ v.double()).norm()


@pytest.mark.parametrize("seed", range(5))
def test_a_solve_that_ran_away_is_no_mere_limit(seed):
    """Stopped by its iterations on the way along what cannot be solved."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randn(100, 32, generator=draw)
    _, info = answer(ConjugateGradient(), low @ low.T, torch.randn(100, generator=draw))
    assert info.outcome.failed


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_condition_number_that_rounding_can_bear_is_no_singularity(scale):
    hessian, _ = symmetric([1.0, 1e-3, 1e-6, 1e-10])
    v = right_side(4)
    found, info = answer(ConjugateGradient(iterations=60), scale * hessian, v)
    assert not info.outcome.failed
    assert relative(found, torch.linalg.solve(scale * hessian, v)) < 1e-4
