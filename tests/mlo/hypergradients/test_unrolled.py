"""`Unrolled` against autograd through the same updates, written by hand."""

from __future__ import annotations

import pytest
import torch

import mlo

from ..oracles import relative
from .hand_loops import Run, pair, standing
from .steps import OPTIMIZERS, adam, groups_of, sgd
from .unrolling import fit, judge, values

TOLERANCE = 1e-10  # rounding of two orders of summation over a few dozen operations
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW

RULES = {
    **OPTIMIZERS,
    "everything of sgd": (
        lambda p: SGD(p, 0.1, momentum=0.8, dampening=0.3, weight_decay=0.1, maximize=True),
        sgd,
    ),
    "groups of adam": (
        groups_of(Adam, {"lr": 0.2, "eps": 1e-2}, {"amsgrad": True, "weight_decay": 0.1}, lr=0.02),
        adam,
    ),
    "adam without a first average": (lambda p: Adam(p, 0.05, betas=(0.0, 0.9)), adam),
    "tensor rate of sgd": (lambda p: SGD(p, torch.tensor(0.1), momentum=0.9), sgd),
    "tensor rate of adam": (lambda p: Adam(p, torch.tensor(0.05)), adam),
    "one by one": (lambda p: Adam(p, 0.05, foreach=False), adam),
    "fused": (lambda p: AdamW(p, 0.05, fused=True), adam),
}


@LOOKAHEAD
@pytest.mark.parametrize("name", RULES)
def test_it_is_autograd_through_all_updates_so_far(name, lookahead):
    """The upper problem moves meanwhile; three real moves, and one on trial with look-ahead."""
    repeat = 2
    make, rule = RULES[name]
    run = Run(pair(make, mlo.Unrolled(steps=50), repeat=repeat, lookahead=lookahead))
    run.tick(3)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule)) < TOLERANCE
    made = repeat * (4 if lookahead else 3)
    assert response.info.products == made
    assert response.info.outcome is mlo.Outcome.EXPLICIT
    assert response.info.residual < 1e-12


@LOOKAHEAD
@pytest.mark.parametrize("steps", [1, 2, 5, None])
@pytest.mark.parametrize("name", ["dampened", "nesterov", "amsgrad", "adamw"])
def test_earlier_updates_are_left_out(name, steps, lookahead):
    """What parameters and optimizer state were when the first of them began, is constant."""
    make, rule = RULES[name]
    run = Run(pair(make, mlo.Unrolled(steps=steps), repeat=3, lookahead=lookahead))
    run.tick(3)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule, last=steps or 3)) < TOLERANCE
    assert response.info.products == (steps or 3)
    if steps != 3:
        assert relative(found, run.expected(rule, last=4)) > 1e-3


@LOOKAHEAD
@pytest.mark.parametrize("name", ["dampened", "amsgrad"])
def test_the_upper_moves_are_the_same_whatever_graphs_are_kept(name, lookahead):
    make, rule = RULES[name]
    runs = []
    for recompute, retain in ((True, True), (False, True), (False, False)):
        method = mlo.Unrolled(steps=5, recompute=recompute)
        runs.append(Run(pair(make, method, repeat=2, lookahead=lookahead, retain=retain)))
        runs[-1].tick(3)
    for run in runs:
        found = run.engine.hypergradient("top")
        assert relative(found, run.expected(rule, last=5)) < TOLERANCE
        assert relative(standing(run.top), standing(runs[0].top)) < 1e-12


def test_one_step_is_one_step():
    run = Run(pair(RULES["nesterov"][0], mlo.Unrolled(steps=1)))
    same = Run(pair(RULES["nesterov"][0], mlo.OneStep()))
    run.tick(3)
    same.tick(3)
    found, expected = (r.engine.hypergradient("top") for r in (run, same))
    assert relative(found, expected) < 1e-14


SETTINGS = {
    "clipped": {"clip_norm": 0.05},
    "projected": {"project": lambda w: {k: torch.sinh(t) / 2 for k, t in w.items()}},
    "onto a ball": {"project": lambda w: {"a": w["a"] / w["a"].norm()}},
    "onto a box": {"project": lambda w: {k: t.clamp(min=0.0) for k, t in w.items()}},
    "all of it": {
        "clip_norm": 0.3,
        "project": lambda w: {k: torch.tanh(t) for k, t in w.items()},
    },
}


@LOOKAHEAD
@pytest.mark.parametrize("name", ["dampened", "adam that decays", "amsgrad"])
@pytest.mark.parametrize("case", SETTINGS)
def test_clipping_is_a_constant_factor_and_projections_are_differentiated(case, name, lookahead):
    make, rule = RULES[name]
    settings = SETTINGS[case]
    method = mlo.Unrolled(steps=6)
    run = Run(pair(make, method, repeat=2, lookahead=lookahead, **settings))
    run.tick(3)
    found, (response,) = run.engine.total_gradient("top")
    assert relative(found, run.expected(rule, last=6, **settings)) < TOLERANCE
    assert response.info.residual < 1e-12


@LOOKAHEAD
@pytest.mark.parametrize("schedule", [{"every": 2}, {"warmup": 2}, {"accumulate": 3}])
@pytest.mark.parametrize("name", ["dampened", "amsgrad"])
def test_schedules_and_micro_batches(name, schedule, lookahead):
    make, rule = RULES[name]
    method = mlo.Unrolled(steps=7)
    run = Run(pair(make, method, repeat=2, lookahead=lookahead, **schedule))
    run.tick(5)
    found = run.engine.hypergradient("top")
    assert relative(found, run.expected(rule, last=7)) < TOLERANCE


@pytest.mark.parametrize("tensor", [False, True])
def test_every_update_is_made_with_the_learning_rate_of_its_time(tensor):
    def make(params):
        rate = torch.tensor(0.2) if tensor else 0.2
        return Adam(params, rate, weight_decay=0.1)

    decay = lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)  # noqa: E731
    run = Run(pair(make, mlo.Unrolled(steps=9), repeat=2, scheduler=decay))
    run.tick(4)
    rates = [float(u.groups["a"]["lr"]) for u in run.updates]
    assert rates == [0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert relative(run.engine.hypergradient("top"), run.expected(adam)) < TOLERANCE


def in_single(low, top, train):
    return fit(low, top, tuple(t.float() for t in train))


def judged_in_single(low, valid):
    return judge(low, tuple(t.float() for t in valid))


@pytest.mark.parametrize("name", ["nesterov", "amsgrad", "adamw"])
def test_single_precision_stays_so_and_is_the_same(name):
    make, method = RULES[name][0], mlo.Unrolled(steps=6)
    at = tuple({k: t.float() for k, t in own.items()} for own in values())
    low = Run(pair(make, method, repeat=2, at=at, fits=in_single, judges=judged_in_single))
    double = Run(pair(make, method, repeat=2))
    for run in (low, double):
        run.tick(3)
    found = low.engine.hypergradient("top")
    assert all(g.dtype == torch.float32 for g in found.values())
    expected = double.engine.hypergradient("top")
    assert relative({k: g.double() for k, g in found.items()}, expected) < 1e-5


def test_what_no_loss_uses_and_where_nothing_depends_is_zero():
    run = Run(pair(RULES["amsgrad"][0], mlo.Unrolled(steps=4), fits=alone))
    run.tick(3)
    found = run.engine.hypergradient("top")
    assert (found["weight"] == 0).all()
    assert found["decay"].abs().min() > 0
    idle = run.low.module["idle"].detach()
    assert torch.equal(idle, run.start["idle"])


def alone(low, top, train):
    """Reads one of the upper parameters."""
    return fit(low, {"decay": top["decay"], "weight": torch.zeros(5)}, train)
