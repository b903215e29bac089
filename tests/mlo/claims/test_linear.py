"""Linearity, right-hand sides of zero, and parameters that nothing uses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mlo.records import Outcome

from .claims import ALL, NESTED, REACH, TICKS
from .matrices import flat
from .programs import answer, drawn, engine, norm
from .systems import adjoint, as_matrix, asked_of, cotangent, geometric, program, symmetric

LINEAR = [label for label, claim in ALL.items() if claim.linear]
TRUNCATED = [label for label, claim in ALL.items() if not claim.linear]


def of_two(label, seed=21):
    """The map applied to v, w, 2 v - 3 w, on a system in which nothing is exact early."""
    claim = ALL[label]
    H = symmetric(geometric(8, 30.0), seed)
    v, w = cotangent(8, seed), cotangent(8, seed + 1)
    ticks = TICKS if claim.reach is not None else 0
    return [adjoint(claim.method, H, x, ticks=ticks)[0] for x in (v, w, 2 * v - 3 * w)]


@pytest.mark.parametrize("label", LINEAR)
def test_an_answer_is_linear_in_the_cotangent_where_that_is_declared(label):
    at_v, at_w, both = of_two(label)
    size = 2 * norm(at_v) + 3 * norm(at_w)
    # CG and Minres stop at residuals of 1e-12, times a condition number of 30.
    assert norm(both - 2 * at_v + 3 * at_w) <= 1e-10 * size


@pytest.mark.parametrize("label", TRUNCATED)
def test_a_krylov_method_that_stopped_early_is_not_linear(label):
    at_v, at_w, both = of_two(label)
    assert norm(both - 2 * at_v + 3 * at_w) > 1e-3 * norm(both)


@pytest.mark.parametrize(
    "label", [label for label in LINEAR if label not in ("Direct", "FD, central", "FD, forward")]
)
def test_the_map_of_a_fixed_method_is_symmetric(label):
    """A polynomial or a sketch of a symmetric H is; so is the product of equal steps."""
    claim = ALL[label]
    H = symmetric(geometric(6, 30.0), 22)
    S = as_matrix(claim.method, H, ticks=TICKS if claim.reach is not None else 0)
    assert norm(S - S.T) <= 1e-9 * norm(S)


@pytest.mark.parametrize("label", ALL)
def test_zero_answers_zero_and_is_no_failure(label):
    """The last one too: a singular Hessian has an answer to zero."""
    claim = ALL[label]
    spectra = ([0.2, 0.5, 1.0, 1.3], [-0.5, 0.4, 0.8, 1.0], [0.0, 0.5, 0.8, 1.0])
    for eigenvalues in spectra:
        H = symmetric(np.array(eigenvalues), 23)
        found, info = adjoint(claim.method, H, np.zeros(4))
        np.testing.assert_array_equal(found, np.zeros(4))
        if label == "Dense" and 0.0 in eigenvalues:
            continue  # it names the singular Hessian, whatever the right-hand side
        assert not info.outcome.failed
        assert info.outcome is (Outcome.ZERO if claim.solves or claim.radius else Outcome.EXPLICIT)


def with_idle(form):
    """One more parameter for every problem, which no loss uses."""
    levels = []
    for level in form.levels:
        more = {"idle": torch.ones(2)}
        solution, start = {**level.solution, **more}, {**level.start, **more}
        levels.append(
            dataclasses.replace(
                level, loss=_without_idle(level.loss), solution=solution, start=start
            )
        )
    return dataclasses.replace(form, levels=tuple(levels))


def _without_idle(loss):
    def used(*read):
        return loss(*({k: t for k, t in w.items() if k != "idle"} for w in read))

    return used


@pytest.mark.parametrize("problem", ["quadratic", "lfm-shaped", "quadratic, depth 3"])
@pytest.mark.parametrize("label", ALL)
def test_an_upper_parameter_that_nothing_uses_gets_zero_and_changes_nothing(label, problem):
    claim = ALL[label]
    if problem not in claim.problems():
        assert problem in NESTED
        return
    form = drawn(problem, 24)
    upper = with_idle(form).levels[-1]
    lower = tuple(
        dataclasses.replace(level, loss=_without_idle(level.loss)) for level in form.levels[:-1]
    )
    idle = answer(dataclasses.replace(form, levels=(*lower, upper)), claim).gradient
    np.testing.assert_array_equal(idle[-2:], np.zeros(2))
    plain = answer(form, claim).gradient
    assert norm(idle[:-2] - plain) <= 1e-12 * norm(plain)


SINGULAR_THEN = {"Dense"}
"""A lower parameter that nothing uses is a row of zeros in the Hessian, which Dense refuses."""


@pytest.mark.parametrize("problem", ["quadratic", "lfm-shaped"])
@pytest.mark.parametrize("label", ALL)
def test_a_lower_parameter_that_nothing_uses_changes_nothing(label, problem):
    claim, form = ALL[label], drawn(problem, 25)
    found = answer(with_idle(form), claim)
    if label in SINGULAR_THEN:
        assert set(found.outcomes) == {Outcome.SINGULAR}
        assert np.isnan(found.gradient[:-2]).all()
        return
    plain = answer(form, claim)
    assert not any(outcome.failed for outcome in found.outcomes)
    # Another size is another start of the power method, and another basis of a sketch.
    allowed = 0.1 if label == "Neumann, auto" else 1e-10
    assert norm(found.gradient[:-2] - plain.gradient) <= allowed * norm(plain.gradient)
    np.testing.assert_array_equal(found.gradient[-2:], np.zeros(2))


@pytest.mark.parametrize("label", ["Unrolled, 4", "ForwardMode"])
def test_ticks_go_on_being_counted_between_answers(label):
    """Asked after every tick, as after all of them: nothing is consumed by asking."""
    claim = ALL[label]
    H, v = symmetric(geometric(5, 10.0), 26), cotangent(5, 26)
    engine_, _ = program(claim.method, H, v)
    for ticks in range(1, TICKS + 1):
        engine_.step()
        asked_often = asked_of(engine_)[0]
        once = adjoint(claim.method, H, v, ticks=ticks)[0]
        np.testing.assert_allclose(asked_often, once, rtol=1e-13)
    assert TICKS > REACH


def test_two_engines_of_one_method_share_no_state():
    """A method is settings alone; what it remembers belongs to the engine."""
    for problem in ("ridge", "lfm-shaped", "quadratic, depth 3"):
        form = drawn(problem, 27)
        for label in ("Nystrom", "Neumann, auto"):
            method = ALL[label].method
            first, second = engine(form, method, away=False), engine(form, method, away=False)
            a, b = (flat(e.hypergradient(form.upper)) for e in (first, second))
            np.testing.assert_array_equal(a, b)
