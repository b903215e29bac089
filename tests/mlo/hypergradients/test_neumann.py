"""The truncated series: its error along every eigenvector, and where it diverges."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo import Neumann, Outcome

from .quadratics import answer, relative, symmetric

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


@pytest.mark.parametrize("settings", [{"terms": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"Neumann\({name}=\.\.\.\)"):
        Neumann(**settings)
