"""Indefinite and singular Hessians: the right answer or a named outcome, never a silent number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlo.records import Outcome
from mlo.testing import saddle

from . import theory
from .claims import ALL, DAMPING, RATE, SEEDS, TICKS
from .hard import (
    AT_SADDLES,
    AT_SINGULAR,
    INDEFINITE,
    RIGHT_AT_SADDLES,
    SINGULAR,
    damped_share,
    met,
)
from .matrices import at_solution, derivatives, flat
from .nested import nested_spectrum, nested_truth
from .programs import answer, drawn, norm
from .systems import adjoint, cotangent, symmetric

SOLVING = [label for label, claim in ALL.items() if claim.solves]
RECORDED = [label for label, claim in ALL.items() if claim.reach is not None]


def test_every_method_that_solves_has_an_expectation():
    assert set(AT_SADDLES) | RIGHT_AT_SADDLES == set(SOLVING) == set(AT_SINGULAR)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label", SOLVING)
def test_at_a_saddle_the_answer_is_right_or_its_failure_has_a_name(label, seed):
    found = met(label, INDEFINITE, seed)
    if label in AT_SADDLES:
        assert found.info.outcome is AT_SADDLES[label]
        assert found.info.outcome.failed
        assert float(found.info.residual) > 1e-3  # and the residual says so as well
        return
    assert found.info.outcome is Outcome.CONVERGED
    # Damping moves each eigenvalue; the drawn routes may favour one direction by 10 or so.
    assert found.error <= (10 * damped_share(INDEFINITE) if label == "Nystrom" else 1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label", SOLVING)
def test_a_singular_hessian_is_named_or_the_residual_says_that_nothing_was_solved(label, seed):
    info = met(label, SINGULAR, seed).info
    assert info.outcome in AT_SINGULAR[label]
    if info.outcome is Outcome.LIMIT:
        assert float(info.residual) > 1e-3
    if label == "Dense":
        assert np.isnan(met(label, SINGULAR, seed).found.gradient).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sketch_answers_the_damped_system_whatever_the_hessian(seed):
    for eigenvalues in (INDEFINITE, SINGULAR):
        H, v = symmetric(np.array(eigenvalues), seed), cotangent(3, seed)
        found, info = adjoint(ALL["Nystrom"].method, H, v)
        expected = theory.damped(H, v, DAMPING)
        assert norm(found - expected) <= 1e-9 * norm(expected)
        assert info.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("eigenvalues", [(1.0, 0.5, -DAMPING), (-DAMPING, -DAMPING, -DAMPING)])
def test_a_damping_that_cancels_an_eigenvalue_is_singular(eigenvalues):
    found, info = adjoint(ALL["Nystrom"].method, np.diag(eigenvalues), cotangent(3, 5))
    assert info.outcome is Outcome.SINGULAR
    assert np.isnan(found).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_singular_system_with_an_answer_is_solved_by_minimal_residuals(seed):
    """v in the range of H: the solution of least length."""
    H = symmetric(np.array([1.0, 0.6, -0.3, 0.0]), seed)
    v = H @ cotangent(4, seed)
    found, info = adjoint(ALL["Minres"].method, H, v)
    assert info.outcome is Outcome.CONVERGED
    assert norm(found - np.linalg.pinv(H) @ v) <= 1e-10 * norm(found)


@pytest.mark.parametrize("eigenvalues", [INDEFINITE, SINGULAR])
@pytest.mark.parametrize("label", RECORDED)
def test_recorded_moves_are_differentiated_whatever_the_hessian(label, eigenvalues):
    """They solve nothing: c_bar = -(dg/dc)^T sum_k (1 - eta H)^k eta v over their updates."""
    for seed in SEEDS:
        form = saddle(eigenvalues, seed=seed)
        found = answer(form, ALL[label])
        assert found.outcomes == [Outcome.EXPLICIT]
        low, top = form.levels
        values = _after(form, TICKS, RATE)
        second, first = derivatives(low, values).curvature, derivatives(top, values).slope
        u = theory.neumann(second["low", "low"], first["low"], ALL[label].reach, RATE)
        expected = first["top"] - second["low", "top"].T @ u
        assert norm(found.gradient - expected) <= 1e-9 * norm(expected)


def _after(form, ticks, rate):
    """Where plain gradient descent leads below."""
    low, top = form.levels
    w, H = flat(low.start), derivatives(low, at_solution(form)).curvature["low", "low"]
    slope = derivatives(low, {"low": low.start, "top": top.start}).slope["low"]
    for _ in range(ticks):
        w, slope = w - rate * slope, slope - rate * H @ slope
    return {"low": {"w": torch.from_numpy(w)}, "top": top.start}


def test_a_middle_problem_at_a_saddle_is_met_too():
    """The quartic program of draw 13 has one; the Hessian there is that of the reduced loss."""
    problem, seed = "quartic, depth 3", 13
    assert nested_spectrum(problem, seed).min() < -0.01
    whole, direct = nested_truth(problem, seed)
    for label in ("Dense", "Minres"):
        found = answer(drawn(problem, seed), ALL[label])
        assert norm(found.gradient - whole) <= 1e-9 * norm(whole - direct)
    found = answer(drawn(problem, seed), ALL["CG"])
    assert Outcome.NEGATIVE_CURVATURE in found.outcomes
