"""Problems that begin anew within the updates that are differentiated: MAML, and longer runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import mlo
from mlo.errors import MethodError

from ..oracles import relative
from .hand_loops import Run, pair
from .steps import OPTIMIZERS
from .unrolling import values

TOLERANCE = 1e-10
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])


def begun(top):
    """Every variable, in its own way, from both upper parameters."""
    outer = top["weight"][:3, None] * top["decay"].exp()
    return {"a": torch.tanh(outer), "b": top["weight"].prod(), "idle": top["decay"] ** 2}


@LOOKAHEAD
@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("steps", ["all", "exactly", "more"])
@pytest.mark.parametrize("name", ["dampened", "nesterov", "adam that decays", "adamw, amsgrad"])
def test_maml_with_several_inner_updates(name, steps, repeat, lookahead):
    make, rule = OPTIMIZERS[name]
    method = mlo.Unrolled({"all": None, "exactly": repeat, "more": 9}[steps])
    run = Run(pair(make, method, start=begun, repeat=repeat, lookahead=lookahead))
    run.tick(3)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule, start=begun)) < TOLERANCE
    assert response.info.products == repeat  # nothing before it began
    if repeat > 1:  # Adam's first step is that of the sign alone
        assert relative(found, run.expected(rule, start=lambda t: _still(begun(t)))) > 1e-2


def _still(tensors):
    return {k: t.detach() for k, t in tensors.items()}


@LOOKAHEAD
@pytest.mark.parametrize("ticks", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["dampened", "amsgrad"])
def test_several_moves_from_one_start(name, ticks, lookahead):
    make, rule = OPTIMIZERS[name]
    settings = {"start": begun, "restart": 3, "repeat": 2, "lookahead": lookahead}
    run = Run(pair(make, mlo.Unrolled(steps=6), **settings))
    run.tick(ticks)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule, start=begun)) < TOLERANCE
    moves = ticks % 3 + 1 if lookahead else (ticks - 1) % 3 + 1
    assert response.info.products == 2 * moves
    assert response.info.outcome is mlo.Outcome.EXPLICIT


@LOOKAHEAD
def test_a_start_that_nobody_above_moves_may_be_out_of_reach(lookahead):
    make, rule = OPTIMIZERS["amsgrad"]
    at = values(5)[0]
    settings = {"start": lambda: at, "restart": 4, "repeat": 2, "lookahead": lookahead}
    run = Run(pair(make, mlo.Unrolled(steps=3), **settings))
    run.tick(3)
    expected = run.expected(rule, last=3, start=lambda top: at)
    assert relative(run.engine.hypergradient("top"), expected) < TOLERANCE


@pytest.mark.parametrize(("steps", "restart"), [(None, 2), (3, 2), (1, 1)])
def test_a_start_out_of_reach_is_refused(steps, restart):
    with pytest.raises(MethodError, match=r"'low'.*start reads 'top'.*Unrolled\(steps=\d\)") as e:
        pair(OPTIMIZERS["sgd"][0], mlo.Unrolled(steps), start=begun, repeat=2, restart=restart)
    assert f"steps={2 * restart}" in str(e.value)


@LOOKAHEAD
def test_one_step_from_a_start_is_what_one_step_says(lookahead):
    answers = []
    for method in (mlo.Unrolled(steps=1), mlo.OneStep()):
        run = Run(pair(OPTIMIZERS["adamw"][0], method, start=begun, lookahead=lookahead))
        run.tick(2)
        answers.append(run.engine.hypergradient("top"))
    assert relative(*answers) < 1e-13


class Forgetful(mlo.Unrolled):
    """Does not say where it got to."""

    def vjp(self, condition, cotangent, state):
        return dataclasses.replace(super().vjp(condition, cotangent, state), start=None)


def test_a_method_that_would_lose_the_route_through_the_start_is_named():
    make, _ = OPTIMIZERS["sgd"]
    engine = pair(make, Forgetful(), start=begun, repeat=2)
    with pytest.raises(MethodError, match=r"'low'.*start reads 'top'.*Forgetful.*Result\.start"):
        engine.step()
    still = {k: torch.ones_like(t) for k, t in values()[0].items()}
    pair(make, Forgetful(), start=lambda: still, repeat=2).step()
