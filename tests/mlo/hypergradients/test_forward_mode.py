"""`ForwardMode` against autograd through all updates so far, and against `Unrolled`."""

from __future__ import annotations

import io

import pytest
import torch
from torch.utils._pytree import tree_leaves

import mlo
from mlo.errors import DoubleBackwardError, MethodError

from ..oracles import relative
from .hand_loops import Run, pair
from .steps import OPTIMIZERS
from .test_unrolled import LOOKAHEAD, RULES
from .unrolling import batches, judge, values

TOLERANCE = 1e-10
ALL = mlo.Unrolled(steps=1000)
SGD = torch.optim.SGD


@LOOKAHEAD
@pytest.mark.parametrize("name", RULES)
def test_it_is_autograd_through_all_updates_so_far(name, lookahead):
    """The upper problem moves meanwhile."""
    make, rule = RULES[name]
    run = Run(pair(make, mlo.ForwardMode(), repeat=2, lookahead=lookahead))
    run.tick(3)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule)) < TOLERANCE
    assert response.info.outcome is mlo.Outcome.EXPLICIT


SETTINGS = {
    "clipped": {"clip_norm": 0.05},
    "every second tick": {"every": 2},
    "later": {"warmup": 2},
    "micro-batches": {"accumulate": 3},
}


@LOOKAHEAD
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("name", ["dampened", "amsgrad"])
def test_it_keeps_up_with_schedules_micro_batches_and_clipping(name, case, lookahead):
    make, rule = RULES[name]
    settings = {"repeat": 2, "lookahead": lookahead, **SETTINGS[case]}
    run = Run(pair(make, mlo.ForwardMode(), **settings))
    run.tick(5)
    clip = {k: v for k, v in SETTINGS[case].items() if k == "clip_norm"}
    assert relative(run.engine.hypergradient("top"), run.expected(rule, **clip)) < TOLERANCE


@LOOKAHEAD
@pytest.mark.parametrize("ticks", [1, 3, 4, 6])
@pytest.mark.parametrize("name", ["nesterov", "amsgrad"])
def test_tangents_are_zero_wherever_the_problem_begins_anew(name, ticks, lookahead):
    make, rule = RULES[name]
    at = values(7)[0]
    settings = {"start": lambda: at, "restart": 3, "repeat": 2, "lookahead": lookahead}
    run = Run(pair(make, mlo.ForwardMode(), **settings))
    run.tick(ticks)
    expected = run.expected(rule, start=lambda top: at)
    assert relative(run.engine.hypergradient("top"), expected) < TOLERANCE


def test_without_any_move_trial_moves_are_differentiated():
    run, reverse = (pair(OPTIMIZERS["nesterov"][0], m, repeat=3) for m in (mlo.ForwardMode(), ALL))
    assert relative(run.hypergradient("top"), reverse.hypergradient("top")) < TOLERANCE


def test_the_upper_moves_are_those_of_reverse_mode():
    runs = [Run(pair(OPTIMIZERS["amsgrad"][0], m, repeat=2)) for m in (mlo.ForwardMode(), ALL)]
    for run in runs:
        run.tick(6)
    for key in ("decay", "weight"):
        first, second = (run.top.module[key].detach() for run in runs)
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def two_above(method):
    """Peers, with parameters of many shapes; the lower loss reads both."""

    def fit(low, first, second, train):
        x, y = train
        hidden = torch.tanh(x @ low["a"] * first["scale"].exp() + second["shift"])
        decay = (second["decay"].exp() * low["a"].square()).sum() + low["b"].square()
        return (hidden.sum(1) + low["b"] - y).square().mean() + 0.1 * decay

    def beside(low, second, first, valid):
        return judge(low, valid) + second["shift"].square() * first["scale"].sum()

    def judged(low, first, valid):
        return judge(low, valid) * first["scale"].square().sum()

    at = values()[0]
    low = mlo.Problem(
        "low",
        params={"a": at["a"], "b": at["b"]},
        loss=fit,
        optimizer=lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
        hypergradient=method,
        repeat=2,
    )
    first = {"scale": torch.tensor([0.1, -0.3]), "unused": torch.ones(3)}
    second = {"shift": torch.tensor(0.2), "decay": torch.full((3, 1), -0.5)}
    sgd = lambda p: SGD(p, 0.1)  # noqa: E731
    first = mlo.Problem("first", params=first, loss=judged, optimizer=sgd)
    second = mlo.Problem("second", params=second, loss=beside, optimizer=sgd)
    data = {"train": batches(12, 1), "valid": batches(12, 2)}
    return mlo.Engine([low, [first, second]], data)


def test_several_upper_problems_have_tangents_of_their_own():
    forward, reverse = two_above(mlo.ForwardMode()), two_above(ALL)
    for _ in range(4):
        forward.step()
        reverse.step()
    for name in ("first", "second"):
        found, expected = forward.hypergradient(name), reverse.hypergradient(name)
        assert relative(found, expected) < TOLERANCE
    assert (forward.hypergradient("first")["unused"] == 0).all()


def test_its_state_is_plain_and_is_loaded_without_executing_code():
    run = Run(pair(OPTIMIZERS["amsgrad"][0], mlo.ForwardMode(), repeat=2))
    run.tick(3)
    state = run.engine._mover.states["low"]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    leaves, again = tree_leaves(state), tree_leaves(loaded)
    assert len(leaves) == len(again) > 10
    for one, other in zip(leaves, again, strict=True):
        if torch.is_tensor(one):
            assert not one.requires_grad
            assert torch.equal(one, other)
    expected = run.engine.hypergradient("top")
    run.engine._mover.states["low"] = loaded
    assert relative(run.engine.hypergradient("top"), expected) == 0.0


def _box(w):
    return {k: t.clamp(-1, 1) for k, t in w.items()}


REFUSED = {
    "many upper parameters": (
        {"method": mlo.ForwardMode(limit=6)},
        r"'low'.*7 tangents.*'top'.*limit=6.*Unrolled",
    ),
    "a projection": ({"project": _box}, r"'low'.*project=.*Unrolled"),
    "a start that reads somebody above": (
        {"start": lambda top: values()[0], "restart": 2},
        r"'low'.*start.*Unrolled",
    ),
    "an unknown optimizer": (
        {"make": lambda p: torch.optim.Adagrad(p, 0.1)},
        r"'low'.*ForwardMode.*SGD, Adam, AdamW.*Adagrad",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_where_it_cannot_serve(case):
    settings, message = REFUSED[case]
    settings = {"make": lambda p: SGD(p, 0.1), "method": mlo.ForwardMode(), **settings}
    with pytest.raises(MethodError, match=message):
        pair(settings.pop("make"), settings.pop("method"), **settings)


def test_as_many_upper_parameters_as_the_limit_are_allowed():
    run = Run(pair(lambda p: SGD(p, 0.1), mlo.ForwardMode(limit=7)))
    run.tick()
    assert relative(run.engine.hypergradient("top"), run.expected(OPTIMIZERS["sgd"][1])) < 1e-10


def test_sparse_gradients_are_refused_since_autograd_would_lose_their_tangents():
    net = torch.nn.Embedding(6, 3, sparse=True)

    def fit(low, top, train):
        return (low(train).sin() * top["a"].exp()).sum()

    low = mlo.Problem(
        "low",
        module=net,
        loss=fit,
        optimizer=SGD(net.parameters(), 0.1),
        hypergradient=mlo.ForwardMode(),
    )
    top = mlo.Problem(
        "top",
        params={"a": torch.zeros(3)},
        loss=lambda low: low(torch.arange(6)).square().sum(),
        optimizer=lambda p: SGD(p, 0.1),
    )
    engine = mlo.Engine([low, top], {"train": [torch.tensor([0, 1, 1, 3])]})
    with pytest.raises(DoubleBackwardError, match=r"'low'.*sparse.*ForwardMode"):
        engine.step()
