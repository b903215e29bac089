"""Outcomes: what is not finite, diverged or converged is called so."""

from __future__ import annotations

import math

import pytest
import torch

import mlo
from mlo.hypergradients import registry

from .quadratics import answer, symmetric


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def went(method, loss, **start):
    """How the response of `low`, with the given loss, went in the move of `top`, and its size."""

    def sgd(params):
        return torch.optim.SGD(params, 0.1)

    def judge(low, top):
        return low["w"].square() + top["w"].square()

    at = {name: {"w": torch.tensor(value)} for name, value in start.items()}
    low = mlo.Problem("low", params=at["low"], loss=loss, optimizer=sgd, hypergradient=method)
    top = mlo.Problem("top", params=at["top"], loss=judge, optimizer=sgd)
    engine = mlo.Engine([low, top], guards=mlo.Guards(on_nonfinite="ignore"))
    (move,) = (m for m in engine.step().moves if m.problem == "top")
    return move.responses[0].info, move.gradient_norm


EXPLICIT = {
    "one step": mlo.OneStep(),
    "central": mlo.FiniteDifference(),
    "forward": mlo.FiniteDifference(scheme="forward"),
    "checked": mlo.FiniteDifference(check=True),
    "checked, any disagreement": mlo.FiniteDifference(check=True, tolerance=1e300),
}


METHODS = {
    **EXPLICIT,
    "Neumann": mlo.Neumann(),
    "CG": mlo.ConjugateGradient(),
    "Dense": mlo.Dense(),
}


NONFINITE = {
    "the parameters": (
        lambda low, top: (low["w"] - top["w"]).square(),
        {"low": math.nan, "top": 1.0},
    ),
    "an upper parameter": (
        lambda low, top: (low["w"] - top["w"]).square(),
        {"low": 1.0, "top": math.nan},
    ),
    # The gradient is finite; its derivative with respect to the square root's argument is not.
    "the mixed derivative": (
        lambda low, top: low["w"].square() + low["w"] * top["w"].sqrt(),
        {"low": 1.0, "top": 0.0},
    ),
}


@pytest.mark.parametrize("where", NONFINITE)
@pytest.mark.parametrize("name", METHODS)
def test_a_hypergradient_that_is_not_finite_is_named(name, where):
    loss, start = NONFINITE[where]
    info, size = went(METHODS[name], loss, **start)
    assert not size.isfinite()
    assert info.outcome is mlo.Outcome.NONFINITE


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("hole", [0.005, 0.01])
def test_a_check_passes_no_number_that_one_of_its_two_radii_does_not_have(scheme, hole):
    def loss(low, top):
        away = abs(float(low["w"].detach()) - 2.0)
        value = (low["w"] - top["w"]).square()
        return value * math.nan if abs(away - hole) < 1e-6 else value

    method = mlo.FiniteDifference(scheme=scheme, check=True, radius=0.01, tolerance=1e300)
    info, size = went(method, loss, low=2.0, top=3.0)
    assert size.isfinite() == (hole == 0.005)
    assert info.outcome.failed


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("depends", [1.0, 0.0])
def test_a_hypergradient_that_is_finite_is_explicit(name, depends):
    def loss(low, top):
        return (low["w"] - (top["w"] if depends else 1.0)).square()

    info, _ = went(EXPLICIT[name], loss, low=2.0, top=3.0)
    assert info.outcome is mlo.Outcome.EXPLICIT
    # Where nothing depends on the upper problem there is nothing to compare.
    assert (info.residual is not None) is bool(name.startswith("checked") and depends)


def test_a_series_that_has_begun_to_grow_has_diverged_though_its_residual_is_small():
    """Along the eigenvalue -0.1 the rest grows by 1.05 a term, from a hundredth of the whole."""
    hessian = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.1]))
    v = torch.tensor([1.0, 0.0, 0.0, 0.01])
    _, info = answer(mlo.Neumann(terms=60, alpha=0.5), hessian, v)
    torch.testing.assert_close(info.residual, torch.tensor(0.01 * 1.05**60) / v.norm())
    assert info.residual < 1
    assert info.outcome is mlo.Outcome.DIVERGED


@pytest.mark.parametrize("rates", [(0.5, 0.01, 0.1), (0.02, 0.3, 0.3), (0.3, 0.3, 0.001)])
def test_a_series_that_converges_with_several_rates_is_never_called_divergent(rates):
    hessian, _ = symmetric([0.05, 0.4, 1.0, 1.9, 2.5, 3.0], seed=2)
    scale = torch.tensor([rates[0]] + [rates[1]] * 2 + [rates[2]] * 3)
    factor = torch.eye(6) - hessian * scale
    assert torch.linalg.eigvals(factor).abs().max() < 1
    grown = 0
    for seed in range(8):
        torch.manual_seed(seed)
        rest = v = torch.randn(6)
        for terms in range(1, 25):
            _, info = answer(mlo.Neumann(terms=terms), hessian, v, rates=rates)
            assert info.outcome is mlo.Outcome.LIMIT
            grown += bool((factor @ rest).norm() > rest.norm())
            rest = factor @ rest
    # The Euclidean length of the rests says nothing: it grows on the way.
    assert grown


def test_a_series_with_several_rates_converges():
    hessian, _ = symmetric([0.05, 0.4, 1.0, 1.9, 2.5, 3.0], seed=2)
    _, info = answer(mlo.Neumann(terms=1500), hessian, torch.randn(6), rates=(0.5, 0.2, 0.3))
    assert info.outcome is mlo.Outcome.CONVERGED


@pytest.mark.parametrize("seed", range(8))
def test_a_rest_that_stays_as_it_is_does_not_grow_by_its_rounding(seed):
    hessian, _ = symmetric([0.0, 0.0, 1.0, 2.0], seed)
    torch.manual_seed(seed)
    _, info = answer(mlo.Neumann(terms=50, alpha=0.5), hessian, torch.randn(4))
    assert info.outcome is mlo.Outcome.LIMIT
