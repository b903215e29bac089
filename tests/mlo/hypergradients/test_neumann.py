"""The truncated series: its error along every eigenvector, and where it diverges."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo import Neumann, Outcome
from mlo.testing import Verdict, check_method, closed_forms

from .preconditioned import fixed
from .quadratics import answer, condition_of, relative, split, symmetric

EIGENVALUES = [0.05, 0.4, 1.0, 1.9, 3.0, 5.5]
TERMS = [1, 2, 3, 10, 40, 200]


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.25, 0.36])
def test_the_error_along_every_eigenvector_is_its_known_factor(terms, alpha):
    hessian, vectors = symmetric(EIGENVALUES)
    mu, v = torch.tensor(EIGENVALUES), torch.randn(6)
    found, info = answer(Neumann(terms=terms, alpha=alpha), hessian, v)
    exact = torch.linalg.solve(hessian, v)
    factors = (1 - alpha * mu) ** terms
    # Rounding of a few hundred additions.
    torch.testing.assert_close(
        vectors.T @ (exact - found), factors * (vectors.T @ exact), rtol=1e-11, atol=1e-12
    )
    # So the error in the norm of the Hessian falls at least by the largest factor.
    error, whole = exact - found, exact @ hessian @ exact
    assert error @ hessian @ error <= factors.abs().max() ** 2 * whole + 1e-24
    # v - Hu has the same factors, and is measured.
    residual = (factors * (vectors.T @ v)).norm() / v.norm()
    torch.testing.assert_close(info.residual, residual, rtol=1e-10, atol=1e-13)
    assert int(info.products) == terms


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.3, 0.02, 0.15)])
def test_by_default_alpha_is_the_diagonal_of_the_learning_rates(terms, rates):
    hessian, _ = symmetric(EIGENVALUES)
    v = torch.randn(6)
    found, info = answer(Neumann(terms=terms), hessian, v, rates=rates)
    # Parameters of 1, 2 and 3 entries.
    alpha = torch.diag(torch.tensor([rates[0]] + [rates[1]] * 2 + [rates[2]] * 3))
    factor = torch.linalg.matrix_power(torch.eye(6) - alpha @ hessian, terms)
    exact = torch.linalg.solve(hessian, v)
    assert relative(found, exact - factor @ exact) < 1e-12
    residual = (v - hessian @ found).norm() / v.norm()
    torch.testing.assert_close(info.residual, residual, rtol=1e-10, atol=1e-13)


def test_one_term_is_alpha_times_the_cotangent():
    v = torch.randn(6)
    found, _ = answer(Neumann(terms=1, alpha=0.3), symmetric(EIGENVALUES)[0], v)
    torch.testing.assert_close(found, 0.3 * v, rtol=1e-15, atol=0)


OUTCOMES = {
    "converged": (EIGENVALUES, 0.25, 1200, Outcome.CONVERGED),
    "too few terms": (EIGENVALUES, 0.25, 20, Outcome.LIMIT),
    # 2 / 5.5 = 0.3636 is the edge.
    "inside": (EIGENVALUES, 0.35, 1000, Outcome.CONVERGED),
    "outside": (EIGENVALUES, 0.37, 1000, Outcome.DIVERGED),
    "far outside": (EIGENVALUES, 5.0, 10, Outcome.DIVERGED),
    "overflow": (EIGENVALUES, 500.0, 200, Outcome.NONFINITE),
    "negative eigenvalue": ([-0.5, 1.0, 1.0, 1.0], 0.5, 50, Outcome.DIVERGED),
    "singular": ([0.0, 1.0, 1.0, 1.0], 0.5, 100, Outcome.LIMIT),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_the_outcome_says_whether_the_series_converged(case):
    eigenvalues, alpha, terms, outcome = OUTCOMES[case]
    hessian, vectors = symmetric(eigenvalues)
    v = vectors.sum(1)
    _, info = answer(Neumann(terms=terms, alpha=alpha), hessian, v)
    assert info.outcome is outcome


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.03, 0.02, 0.05)])
@pytest.mark.parametrize("alpha", [None, 0.2])
def test_preconditioned_sums_are_those_of_the_matrices(terms, rates, alpha):
    (hessian, _), (m, _) = symmetric(EIGENVALUES), symmetric([0.5, 0.7, 1, 2, 3, 4.0], seed=2)
    v = torch.randn(6)
    method = Neumann(terms=terms, alpha=alpha, preconditioner=fixed(m))
    found, info = answer(method, hessian, v, rates=rates)
    root = torch.tensor([rates[0]] + [rates[1]] * 2 + [rates[2]] * 3).sqrt()
    if alpha is not None:
        root = torch.full((6,), alpha).sqrt()
    b = torch.diag(root) @ torch.linalg.inv(m) @ torch.diag(root)
    expected, power = torch.zeros(6), b @ v
    for _ in range(terms):
        expected, power = expected + power, power - b @ hessian @ power
    assert relative(found, expected) < 1e-11
    if alpha is not None or len(set(rates)) == 1:
        # With one rate for all, B is A M^{-1}.
        torch.testing.assert_close(b, (alpha or rates[0]) * torch.linalg.inv(m))
    assert int(info.products) == terms
    residual = (v - hessian @ found).norm() / v.norm()
    torch.testing.assert_close(info.residual, residual, rtol=1e-9, atol=1e-13)


def test_divergence_is_judged_in_the_norm_in_which_the_series_contracts():
    # B H has the eigenvalues of H B: the Euclidean rest grows at first, and this is no divergence.
    m = torch.diag(torch.tensor([1e-3, 1.0, 1.0, 1.0]))
    turn, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    root = m.sqrt()
    hessian = root @ (turn / 4.5) @ root
    v = torch.tensor([1.0, 0.0, 0.0, 0.0])
    outcomes, residuals = [], []
    for terms in range(1, 200, 20):
        _, info = answer(Neumann(terms=terms, alpha=1.0, preconditioner=fixed(m)), hessian, v)
        outcomes.append(info.outcome)
        residuals.append(float(info.residual))
    assert max(residuals) > 1
    assert Outcome.DIVERGED not in outcomes
    assert outcomes[-1] is Outcome.CONVERGED
    _, info = answer(Neumann(terms=50, alpha=3.0, preconditioner=fixed(m)), hessian, v)
    assert info.outcome is Outcome.DIVERGED


AUTO = {
    "positive": ([0.5, 1.0, 1.9, 3.0, 4.0, 5.5], 500, Outcome.CONVERGED),
    "stiff": ([1e-3, 1.0, 10.0, 100.0, 1e3, 1e4], 100, Outcome.LIMIT),
    "tiny": ([1e-9, 2e-9, 3e-9, 4e-9], 200, Outcome.CONVERGED),
    "huge": ([1e9, 2e9, 3e9, 4e9], 200, Outcome.CONVERGED),
    "clustered": ([5.0, 5.0, 5.0, 5.0 + 1e-9], 60, Outcome.CONVERGED),
    "indefinite": ([-3.0, 1.0, 1.0, 2.0], 200, Outcome.DIVERGED),
    "negative": ([-3.0, -1.0, -1.0, -2.0], 30, Outcome.DIVERGED),
    "rank one": ([2.0, 0.0, 0.0, 0.0], 60, Outcome.LIMIT),
    "zero": ([0.0] * 4, 20, Outcome.LIMIT),
}


@pytest.mark.parametrize("case", AUTO)
@pytest.mark.parametrize("preconditioned", [False, True])
def test_an_automatic_step_converges_where_a_series_can(case, preconditioned):
    eigenvalues, terms, outcome = AUTO[case]
    n = len(eigenvalues)
    (hessian, vectors), (m, _) = (
        symmetric(eigenvalues),
        symmetric([0.01] * (n - 1) + [0.015], seed=3),
    )
    preconditioner = fixed(m) if preconditioned else None
    method = Neumann(terms=terms, alpha="auto", preconditioner=preconditioner)
    found, info = answer(method, hessian, vectors.sum(1))
    assert info.outcome is outcome
    assert int(info.products) == terms + 10
    assert found.isfinite().all()
    if case == "zero":
        assert torch.equal(found, torch.zeros(n))
    if outcome is Outcome.CONVERGED:
        assert relative(found, torch.linalg.solve(hessian, vectors.sum(1))) < 1e-5


def test_the_automatic_step_is_below_the_edge_for_all_seeds_and_sharper_with_more_iterations():
    hessian, vectors = symmetric(EIGENVALUES)
    v = vectors.sum(1)
    steps = {}
    for count in (1, 10, 60):
        # One term is alpha v.
        steps[count] = [
            float((found / v).mean())
            for seed in range(50)
            for found, _ in [
                answer(
                    Neumann(terms=1, alpha="auto", power_iterations=count, seed=seed), hessian, v
                )
            ]
        ]
        assert max(steps[count]) < 2 / 5.5
    assert max(steps[10]) <= 1 / 5.5 < 1.2 * min(steps[60])
    assert min(steps[1]) < min(steps[10]) < min(steps[60])


def test_one_bound_serves_all_solves_at_a_point_and_no_random_state_is_touched():
    condition, v = condition_of(symmetric(EIGENVALUES)[0]), split(torch.ones(6))
    state = torch.get_rng_state()
    method = Neumann(terms=5, alpha="auto", power_iterations=7)
    with torch.no_grad():
        first, second = (method.vjp(condition, v, None).info for _ in range(2))
    assert (int(first.products), int(second.products)) == (12, 5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("alpha", [0.25, "auto"])
def test_zero_nan_and_single_precision(alpha):
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    method = Neumann(terms=100, alpha=alpha)
    found, info = answer(method, hessian, torch.zeros(4))
    assert torch.equal(found, torch.zeros(4))
    assert info.outcome is Outcome.ZERO
    found, info = answer(method, hessian.float(), torch.ones(4).float())
    assert found.dtype is torch.float32
    assert relative(found.double(), torch.linalg.solve(hessian, torch.ones(4))) < 1e-5
    for bad in (float("nan"), float("inf")):
        broken = hessian.clone()
        broken[1, 1] = bad
        assert answer(method, broken, torch.ones(4))[1].outcome is Outcome.NONFINITE


def test_an_automatic_step_keeps_what_check_method_asks_for():
    forms = [f for f in closed_forms() if not f.nested]
    report = check_method(Neumann(alpha="auto", terms=60), problems=forms)
    assert report.verdicts["ridge"] is Verdict.EXACT


def test_needs_and_symmetry_are_those_of_the_settings():
    assert Neumann().needs == {"learning_rate"}
    assert Neumann(alpha="auto").needs == set()
    assert Neumann(alpha=0.1, preconditioner="optimizer").needs == {"second_moments"}
    assert Neumann(preconditioner="optimizer").needs == {"second_moments", "learning_rate"}
    assert not Neumann(preconditioner="diagonal").symmetric
    assert mlo.ConjugateGradient(preconditioner="diagonal").symmetric


@pytest.mark.parametrize(
    "settings",
    [
        *({"terms": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"alpha": "automatic"}),
        *({"power_iterations": 0}, {"seed": -1}, {"warm_start": 1}),
    ],
)
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"Neumann\({name}=\.\.\.\)"):
        Neumann(**settings)
