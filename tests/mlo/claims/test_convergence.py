"""Convergence in the norm that the theory names, at every setting of the knob."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlo

from . import theory
from .claims import RATE, SEEDS
from .convergence import SWEEPS, matrix_of, minres, power_step
from .systems import adjoint, as_matrix, asked_of, cotangent, geometric, program, symmetric

BY_LABEL = {sweep.label: sweep for sweep in SWEEPS}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label", BY_LABEL)
def test_at_every_setting_the_error_is_within_its_law(label, seed):
    points = BY_LABEL[label].points(seed)
    for point in points:
        assert point.error <= point.law + point.rounding
    # The law says something: somewhere the error takes a good part of it.
    assert max(point.share for point in points) > (0.001 if label == "Dense" else 0.05)


@pytest.mark.parametrize("label", ["Neumann", "Neumann, auto", "Unrolled", "ForwardMode"])
def test_the_error_along_an_eigenvector_is_its_law(label):
    for point in BY_LABEL[label].points(14):
        assert abs(point.error - point.law) <= point.rounding


@pytest.mark.parametrize("label", ["CG", "Minres", "Minres, saddle", "Nystrom"])
def test_it_ends_in_rounding(label):
    last = BY_LABEL[label].points(15)[-1]
    assert last.error <= last.rounding
    assert last.law <= 2 * last.rounding


@pytest.mark.parametrize(
    ("label", "factor"), [("FD, central", 4.0), ("FD, forward", 2.0), ("Sama", 4.0)]
)
def test_half_the_radius_leaves_a_quarter_or_half_of_the_error(label, factor):
    errors = [point.error for point in BY_LABEL[label].points(16)]
    for large, small in itertools.pairwise(errors):
        assert large / small == pytest.approx(factor, rel=0.1)


def test_the_residual_of_minres_never_grows():
    for seed in SEEDS:
        for eigenvalues in (None, (-1.0, -0.2, 0.1, 0.5, 1.0)):
            errors = [1.0, *(point.error for point in minres(seed, eigenvalues))]
            assert all(b <= a * (1 + 1e-12) + 1e-13 for a, b in itertools.pairwise(errors))


def test_the_automatic_step_is_below_the_largest_one_and_not_far():
    """Below 1 / largest but for one draw in a hundred, and below 2 / largest for all of these."""
    H, v = symmetric(geometric(12, 1e3), 13), cotangent(12, 13)
    steps = np.array([power_step(H, v, seed) for seed in range(60)])  # largest eigenvalue 1
    assert steps.min() >= 1.0 / theory.power_slack(12, 10)
    assert (steps > 1.0).sum() <= 3
    assert steps.max() < 2.0


def sketched(rank, seed, H, damping=0.01):
    """H_k, from the map that the method applies: (H_k + d I)^{-1}."""
    method = mlo.Nystrom(rank=rank, damping=damping, seed=seed)
    return np.linalg.inv(as_matrix(method, H)) - damping * np.eye(len(H))


def test_a_sketch_lies_between_zero_and_the_hessian_and_has_its_rank():
    H = symmetric(np.geomspace(1e-3, 1.0, 8), 17)
    for rank in (1, 3, 6, 8):
        found = sketched(rank, 5, H)
        assert np.linalg.eigvalsh((found + found.T) / 2).min() > -1e-12
        assert np.linalg.eigvalsh(H - found).min() > -1e-12
        assert np.linalg.matrix_rank(found, tol=1e-10) == rank


def test_what_a_sketch_loses_is_within_its_bound_in_the_mean():
    """Frangella et al., proposition 2.2; a mean over 8 draws."""
    H = symmetric(np.geomspace(1e-4, 1.0, 10), 18)
    for rank in (4, 7):
        law = theory.nystrom_mean(np.linalg.eigvalsh(H), rank)
        lost = [np.linalg.norm(H - sketched(rank, seed, H), 2) for seed in range(8)]
        assert np.mean(lost) <= law
        assert np.mean(lost) >= np.linalg.eigvalsh(H)[-1 - rank]  # no rank-k matrix does better


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_asked_of_a_definite_system_points_along_its_right_hand_side(seed):
    """v^T S v > 0 at every setting: all of these S are positive definite, CG's iterates climb."""
    H, v, u = matrix_of(seed)
    climbing = 0.0
    for n in (1, 2, 4, 8):
        for method in (mlo.Neumann(terms=n), mlo.Nystrom(rank=n), mlo.Neumann(n, alpha="auto")):
            assert v @ adjoint(method, H, v)[0] > 0
        x, _ = adjoint(mlo.ConjugateGradient(iterations=n, tolerance=0.0), H, v)
        assert climbing < v @ x <= v @ u * (1 + 1e-12)
        climbing = v @ x


def test_a_warm_start_goes_on_where_the_last_call_stopped():
    """Two iterations a tick, and the H-norm of the error falls to rounding over the ticks."""
    H, v, u = matrix_of(19, condition=5.0)
    method = mlo.ConjugateGradient(iterations=2, tolerance=1e-13, warm_start=True)
    engine, _ = program(method, H, v)
    errors = []
    for _ in range(20):
        errors.append(norm_of(asked_of(engine)[0] - u, H) / norm_of(u, H))
        engine.step()
    assert errors[0] <= theory.chebyshev(np.linalg.eigvalsh(H), 2)
    assert all(b < 0.8 * a or b < 1e-12 for a, b in itertools.pairwise(errors))
    assert errors[-1] < 1e-12


def norm_of(e, H):
    return float(e @ H @ e) ** 0.5


@pytest.mark.parametrize("kind", [mlo.ConjugateGradient, mlo.Minres])
def test_a_preconditioner_changes_the_pace_and_not_the_answer(kind):
    """A diagonal Hessian of condition 100 is one iteration for its own diagonal."""
    H, v = np.diag(np.geomspace(1e-2, 1.0, 8)), cotangent(8, 20)
    for preconditioner in ("diagonal", None):
        method = kind(iterations=1, tolerance=0.0, preconditioner=preconditioner)
        found, _ = adjoint(method, H, v)
        near = np.linalg.norm(H @ found - v) / np.linalg.norm(v) < 1e-12
        assert near == (preconditioner is not None)


@pytest.mark.parametrize(
    ("method", "reach"), [(mlo.OneStep(), 1), (mlo.Unrolled(steps=3), 3), (mlo.ForwardMode(), 6)]
)
def test_a_move_on_trial_counts_with_the_real_ones_before_it(method, reach):
    """With lookahead the upper problem answers through one move more than there have been."""
    H, v, _ = matrix_of(21)
    engine, _ = program(method, H, v, lookahead=True)
    for tick in range(1, 7):
        (size,) = (m.gradient_norm for m in engine.step().moves if m.problem == "top")
        expected = np.linalg.norm(theory.neumann(H, v, min(tick, reach), RATE))
        assert float(size) == pytest.approx(float(expected), rel=1e-12)
