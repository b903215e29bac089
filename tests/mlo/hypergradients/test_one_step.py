"""`OneStep` against autograd through the same step, written by hand.

The formulas below are those of the optimizers' papers with PyTorch's conventions; nothing of the
engine is in them.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import mlo

from ..oracles import Level, flat, gradient, relative
from ..programs import program
from .steps import OPTIMIZERS, SGD

TOLERANCE = 1e-11  # rounding of one backward pass


def two_levels(*, judge: bool = False) -> list[Level]:
    """A lower problem of three parameters that reads an upper one, and is read back.

    A judge does not read itself: all of its gradient is a response.
    """
    # The shape of parameters goes with the place in the table.
    reads = {"one": (), "two": (), "low": ("top",), "top": ("low",)}
    kinds = ["quartic", "quartic", "trigonometric", "quartic"]
    return program(reads, kinds, judges=("top",) if judge else ())[2:]


def engine_of(levels, make, *, method=None, lookahead=True, retain=True, **settings) -> mlo.Engine:
    low, top = levels
    problems = [
        mlo.Problem(
            "low",
            params=low.start,
            loss=low.loss,
            reads=low.reads,
            optimizer=make,
            hypergradient=method,
            **settings,
        ),
        mlo.Problem(
            "top",
            params=top.start,
            loss=top.loss,
            reads=top.reads,
            optimizer=lambda ps: SGD(ps, 0.1),
        ),
    ]
    return mlo.Engine(problems, lookahead=lookahead, retain=retain)


def standing(problem: mlo.Problem) -> dict[str, Tensor]:
    return {k: p.detach().clone() for k, p in problem.module.named_parameters()}


def snapshot(engine: mlo.Engine) -> dict:
    """Where both stand, and groups and states of the lower optimizer, by name."""
    low = engine.problems["low"]
    names = {id(p): k for k, p in low.module.named_parameters()}
    return {
        "low": standing(low),
        "top": standing(engine.problems["top"]),
        "groups": {names[id(p)]: g for g in low.optimizer.param_groups for p in g["params"]},
        "states": {names[id(p)]: copy.deepcopy(s) for p, s in low.optimizer.state.items()},
    }


def clipped(grads: dict, norm: float | None) -> dict:
    if norm is None:
        return grads
    factor = norm / (flat(grads).norm().detach() + 1e-6)
    return {k: g * factor.clamp(max=1.0) for k, g in grads.items()}


def moved(levels, rule, then, top, *, clip_norm=None, project=None, repeat=1) -> dict:
    """Where the lower problem moves from `then`; the last of its updates with a graph."""
    low = levels[0]
    w, states = then["low"], dict(then["states"])
    for _ in range(repeat):
        w = {k: t.detach().requires_grad_() for k, t in w.items()}
        loss = low.at({"low": w, "top": top})
        grads = clipped({k: gradient(loss, t) for k, t in w.items()}, clip_norm)
        for k, t in list(w.items()):
            w[k], states[k] = rule(t.detach(), grads[k], then["groups"][k], states.get(k, {}))
            states[k] = {n: torch.as_tensor(x).detach() for n, x in states[k].items()}
        w = {**w, **(project(w) if project else {})}
    return w


def reference(levels, rule, then, top_now, **settings) -> dict[str, Tensor]:
    """d/dx of the upper loss at the move that was made at `then`, x shifted there and now alike."""
    shift = {k: torch.zeros_like(t).requires_grad_() for k, t in top_now.items()}
    top_then = {k: t + shift[k] for k, t in then["top"].items()}
    w = moved(levels, rule, then, top_then, **settings)
    loss = levels[1].at({"low": w, "top": {k: t + shift[k] for k, t in top_now.items()}})
    return {k: gradient(loss, s, graph=False) for k, s in shift.items()}


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("ticks", [0, 1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lookahead_is_the_derivative_of_the_step_to_come(name, ticks, retain):
    make, rule = OPTIMIZERS[name]
    levels = two_levels()
    engine = engine_of(levels, make, retain=retain)
    for _ in range(ticks):
        engine.step()
    then = snapshot(engine)
    expected = reference(levels, rule, then, then["top"])
    assert relative(engine.hypergradient("top"), expected) < TOLERANCE
    # The upper problem's own move is made with the same gradient.
    engine.step()
    after = standing(engine.problems["top"])
    made = {k: (then["top"][k] - after[k]) / 0.1 for k in after}
    assert relative(made, expected) < TOLERANCE


@pytest.mark.parametrize("ticks", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_otherwise_it_is_the_derivative_of_the_recorded_move(name, ticks):
    make, rule = OPTIMIZERS[name]
    levels = two_levels()
    engine = engine_of(levels, make, lookahead=False)
    for _ in range(ticks):
        then = snapshot(engine)
        engine.step()
    # In the tick the upper problem moves with the derivative of the move just made.
    now = standing(engine.problems["top"])
    made = {k: (then["top"][k] - now[k]) / 0.1 for k in now}
    assert relative(made, reference(levels, rule, then, then["top"])) < TOLERANCE
    # Afterwards the move is still differentiated where it was made, the loss taken where all are.
    landed = {k: t.detach() for k, t in moved(levels, rule, then, then["top"]).items()}
    assert relative(standing(engine.problems["low"]), landed) < TOLERANCE
    expected = reference(levels, rule, then, now)
    assert relative(engine.hypergradient("top"), expected) < TOLERANCE


def test_before_the_first_move_a_trial_move_is_differentiated():
    make, rule = OPTIMIZERS["nesterov"]
    levels = two_levels()
    engine = engine_of(levels, make, lookahead=False)
    then = snapshot(engine)
    expected = reference(levels, rule, then, then["top"])
    assert relative(engine.hypergradient("top"), expected) < TOLERANCE
    assert relative(standing(engine.problems["low"]), then["low"]) == 0.0


def test_amsgrad_is_flat_where_an_older_gradient_was_larger():
    make, rule = OPTIMIZERS["amsgrad"]
    levels = two_levels()
    engine = engine_of(levels, make)
    engine.step()
    for state in list(engine.problems["low"].optimizer.state.values())[:2]:
        state["max_exp_avg_sq"] *= 100
    then = snapshot(engine)
    expected = reference(levels, rule, then, then["top"])
    assert relative(engine.hypergradient("top"), expected) < TOLERANCE


SETTINGS = {
    "clipped": {"clip_norm": 0.05},
    "a bound that does not bind": {"clip_norm": 1e6},
    "projected": {"project": lambda w: {k: torch.sinh(t) / 2 for k, t in w.items()}},
    "projected onto a ball": {"project": lambda w: {k: t / flat(w).norm() for k, t in w.items()}},
    "one of several projected": {"project": lambda w: {"b": w["b"].square()}},
    "projected onto a box": {"project": lambda w: {k: t.clamp(min=0.0) for k, t in w.items()}},
    "repeated": {"repeat": 3},
    "all of it": {
        "repeat": 2,
        "clip_norm": 0.3,
        "project": lambda w: {k: torch.tanh(t) for k, t in w.items()},
    },
}


@pytest.mark.parametrize("name", ["sgd", "dampened", "nesterov", "amsgrad"])
@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("case", SETTINGS)
def test_clipping_projection_and_repeated_updates_are_part_of_the_move(case, lookahead, name):
    make, rule = OPTIMIZERS[name]
    levels, settings = two_levels(), SETTINGS[case]
    engine = engine_of(levels, make, lookahead=lookahead, **settings)
    engine.step()
    then = snapshot(engine)
    if lookahead:
        found, now = engine.hypergradient("top"), then["top"]
    else:
        engine.step()
        found, now = engine.hypergradient("top"), standing(engine.problems["top"])
    assert relative(found, reference(levels, rule, then, now, **settings)) < TOLERANCE


@pytest.mark.parametrize("lookahead", [True, False])
def test_the_last_of_several_updates_is_that_of_the_last_batch(lookahead):
    """f = (w - s x)^2 / 2 and F = w x: dw'/dx = rate * s, with s the last batch of the tick."""
    scales = [torch.tensor(s) for s in (1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0)]
    low = mlo.Problem(
        "low",
        params={"w": torch.tensor(0.0)},
        loss=lambda low, top, scale: (low["w"] - scale * top["x"]).square() / 2,
        optimizer=lambda ps: SGD(ps, 0.5),
        repeat=3,
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.tensor(1.0)},
        loss=lambda low, top: low["w"] * top["x"],
        optimizer=lambda ps: SGD(ps, 1e-9),
    )
    engine = mlo.Engine([low, top], data={"scale": scales}, lookahead=lookahead)
    w = 0.0
    for last, draws in ((3.0, (1.0, 2.0, 3.0)), (11.0, (5.0, 7.0, 11.0))):
        engine.step()
        for s in draws:
            w -= 0.5 * (w - s)
        torch.testing.assert_close(low.module["w"].detach(), torch.tensor(w), rtol=1e-7, atol=0)
        if not lookahead:
            found = engine.hypergradient("top")["x"]
            torch.testing.assert_close(found, torch.tensor(w + 0.5 * last), rtol=1e-7, atol=0)


def test_it_is_the_default_and_costs_no_gradient_of_its_own():
    calls: list[int] = []
    levels = two_levels()
    counted = copy.copy(levels[0].loss)
    low = [copy.copy(levels[0]), levels[1]]
    object.__setattr__(low[0], "loss", lambda *a: calls.append(1) or counted(*a))
    for retain, evaluations in ((True, 1), (False, 2)):
        engine = engine_of(low, OPTIMIZERS["sgd"][0], retain=retain)
        assert engine.problems["low"].hypergradient == mlo.OneStep()
        calls.clear()
        engine.hypergradient("top")
        assert len(calls) == evaluations


def test_a_loss_without_a_mixed_derivative_leaves_the_direct_gradient():
    low = mlo.Problem(
        "low",
        module=nn.Linear(2, 1),
        loss=lambda low, top: low.weight.square().sum() + low.bias.sum() + top["x"] ** 2,
        optimizer=lambda ps: SGD(ps, 0.1),
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.tensor(3.0)},
        loss=lambda low, top: low.weight.sum() + top["x"] ** 2,
        optimizer=lambda ps: SGD(ps, 0.1),
    )
    engine = mlo.Engine([low, top], lookahead=True)
    torch.testing.assert_close(engine.hypergradient("top")["x"], torch.tensor(6.0))
