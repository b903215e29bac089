"""What `check_hypergradient` refuses to check, and settings that make no sense."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import (
    CheckError,
    DeclarationError,
    EvaluationError,
    ParameterError,
    StationarityError,
)
from mlo.testing import Reference, check_hypergradient

from .checked import (
    LOWER,
    MIDDLE,
    UPPER,
    aim,
    bowl,
    lfm,
    pair,
    passed,
    staged,
)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(DeclarationError, match=r"'uper'.*did you mean 'upper'.*'relearner'"):
        check_hypergradient(lfm(), "uper")


def test_a_parameter_that_was_replaced_since_is_named_as_hypergradient_does():
    engine = pair(bowl, aim)
    engine.problems["low"].module.w = nn.Parameter(torch.zeros(3))
    with pytest.raises(ParameterError, match=r"'low'.*'w' was replaced"):
        check_hypergradient(engine, "top")


def test_inference_mode_is_refused_as_hypergradient_does():
    engine = pair(bowl, aim)
    with torch.inference_mode(), pytest.raises(EvaluationError, match="inference_mode"):
        check_hypergradient(engine, "top")


@pytest.mark.parametrize("against", ["move", "", 3])
def test_a_wrong_reference_is_refused(against):
    with pytest.raises(DeclarationError, match=r"against=.*'moves', 'solution'") as caught:
        check_hypergradient(lfm(), UPPER, against=against)
    assert repr(against) in str(caught.value)


def test_moves_are_refused_of_methods_that_differentiate_none_and_these_are_named():
    engine = lfm({LOWER: mlo.OneStep(), MIDDLE: mlo.Neumann()})
    with pytest.raises(
        DeclarationError, match=r"against='moves'.*'relearner'.*'solution'"
    ) as caught:
        check_hypergradient(engine, UPPER, against="moves")
    assert "'learner'" not in str(caught.value)


def test_solutions_are_refused_of_problems_that_are_held_at_a_bound():
    """A projected problem has no zero gradient; the re-solved program would be another one."""
    engine = pair(bowl, aim, project=lambda p: {"w": p["w"].clamp(-0.1, 0.1)})
    with pytest.raises(DeclarationError, match=r"'low'.*project="):
        check_hypergradient(engine, "top", against="solution")


UNSOLVABLE = {
    "linear": lambda low, top: (low["w"] * top["x"]).sum(),
    "convex, without a minimum": lambda low, top: (low["w"] + low["w"].exp() * top["x"] ** 2).sum(),
}


@pytest.mark.parametrize("loss", UNSOLVABLE)
def test_a_lower_problem_without_a_solution_is_named(loss):
    engine = pair(UNSOLVABLE[loss], aim, mlo.Dense(damping=1.0))
    with pytest.raises(StationarityError, match=r"'low': could not be solved.*1e-10.*moves") as e:
        check_hypergradient(engine, "top", bias=9.0)
    assert e.value.problem == "low"


def test_the_unsolvable_one_of_several_is_named():
    losses = {"b": lambda b, a, top: (b["w"] * a["w"] * top["w"]).sum()}
    engine = staged(dict.fromkeys("ab", mlo.Dense(damping=1.0)), losses)
    with pytest.raises(StationarityError, match=r"'b'"):
        check_hypergradient(engine, "top", bias=9.0)


ZERO = {
    "nothing depends": lambda low, top: 0 * low["w"].sum() + 0 * top["x"].sum(),
    "far smaller than the loss": lambda low, top: 1e12 + low["w"].sum(),
}


@pytest.mark.parametrize("loss", ZERO)
def test_where_there_is_nothing_to_see_it_says_so(loss):
    engine = pair(bowl, ZERO[loss])
    with pytest.raises(CheckError, match=r"nothing to see: problem 'top'.*another point"):
        check_hypergradient(engine, "top")


def test_at_the_minimum_of_its_own_loss_a_right_loss_is_not_called_wrong():
    """Value and slope are zero at one, so the whole difference is rounding of the argument."""

    def near(low, top):
        return (low["w"] - top["x"]).square().sum()

    at = torch.ones(3)
    engine = pair(near, lambda low: (low["w"] - 2).square().sum(), low={"w": at}, top={"x": at})
    passed(engine, "top", Reference.MOVES)


def test_a_singular_hessian_is_named():
    """More parameters than the loss determines, as an overparametrized model has."""

    def loose(low, top):
        return (low["w"].sum() - top["x"].sum()).square()

    engine = pair(loose, lambda low: low["w"].sum().square(), mlo.Dense(damping=0.1))
    with pytest.raises(CheckError, match=r"'low'.*singular"):
        check_hypergradient(engine, "top", bias=9.0)


def test_a_larger_step_sees_what_a_smaller_one_cannot():
    def far(low, top):
        return 1e4 + low["w"].square().sum()

    engine = pair(bowl, far)
    with pytest.raises(CheckError, match="nothing to see"):
        check_hypergradient(engine, "top", step=1e-9)
    passed(engine, "top", Reference.MOVES, step=1e-3, tolerance=1e-4)


BAD = {
    "count=0": {"count": 0},
    "count=-1": {"count": -1},
    "count=2.5": {"count": 2.5},
    "step=0": {"step": 0.0},
    "step=-1e-6": {"step": -1e-6},
    "step=nan": {"step": float("nan")},
    "tolerance=-1": {"tolerance": -1.0},
    "tolerance=nan": {"tolerance": float("nan")},
    "bias=-1": {"bias": -1.0},
    "residual=0": {"residual": 0.0},
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_make_no_sense_are_refused_by_name(case):
    (name,) = BAD[case]
    with pytest.raises(DeclarationError, match=f"{name}="):
        check_hypergradient(pair(bowl, aim), "top", **BAD[case])
