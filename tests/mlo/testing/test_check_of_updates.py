"""`check_hypergradient` where moves are of several updates, and all of them are differentiated."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import mlo
from mlo.errors import CheckError, DeclarationError
from mlo.testing import Reference, check_hypergradient

from .checked import LOWER, MIDDLE, UPPER, aim, bowl, lfm, noisy_net, pair

METHODS = {
    "all of the last move": mlo.Unrolled(),
    "as many": mlo.Unrolled(steps=3),
    "more": mlo.Unrolled(steps=7, recompute=False),
    "tangents": mlo.ForwardMode(limit=1000),
}


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_differences_of_all_updates_confirm_it(name, lookahead):
    engine = lfm(METHODS[name], repeat=3, lookahead=lookahead, net=noisy_net)
    engine.step()
    found = check_hypergradient(engine, UPPER)
    assert found.reference is Reference.MOVES
    assert found.error < 1e-6
    assert found.bias < 1e-12
    assert found.biases.keys() == {LOWER, MIDDLE}


def test_the_adam_of_every_update_is_confirmed():
    adam = lambda params: torch.optim.Adam(params, 1e-2, amsgrad=True)  # noqa: E731
    engine = lfm(mlo.Unrolled(), repeat=2, optimizer=adam)
    for _ in range(3):
        engine.step()
    found = check_hypergradient(engine, UPPER, count=3)
    assert found.error < 1e-6
    assert found.bias < 1e-12


def test_a_start_that_reads_the_upper_problem_is_part_of_it():
    engine = pair(
        bowl,
        aim,
        mlo.Unrolled(steps=6),
        repeat=3,
        start=lambda top: {"w": torch.tanh(top["x"]) + torch.zeros(3)},
        restart=2,
    )
    for _ in range(3):
        found = check_hypergradient(engine, "top")
        assert found.error < 1e-6
        assert found.bias < 1e-12
        engine.step()


@dataclasses.dataclass(frozen=True)
class Halved(mlo.Unrolled):
    """Half of what it should say."""

    def vjp(self, condition, cotangent, state):
        found = super().vjp(condition, cotangent, state)
        grads = tuple(None if g is None else g / 2 for g in found.grads)
        return dataclasses.replace(found, grads=grads)


def test_a_wrong_method_is_named():
    methods = {LOWER: mlo.Unrolled(), MIDDLE: Halved()}
    with pytest.raises(CheckError, match=r"'relearner'.*Halved"):
        check_hypergradient(lfm(methods, repeat=3), UPPER)


@pytest.mark.parametrize("method", [mlo.OneStep(), mlo.Unrolled(steps=2)])
def test_updates_that_are_not_all_differentiated_are_refused(method):
    reach = method.reach
    with pytest.raises(
        DeclarationError, match=rf"repeat=3.*{type(method).__name__} differentiates {reach} of"
    ):
        check_hypergradient(lfm(method, repeat=3), UPPER)
