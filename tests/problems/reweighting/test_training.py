"""Schedules against closed forms over whole runs; settings and what reaches the optimizers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import mlo
from mlo.configuration import configure
from mlo.errors import ConfigurationError
from problems.training import Training, Upper, moves


def own_loss(net):
    return sum(p.square().sum() for p in net.parameters())


def rates(problem, ticks, *, below=None):
    """The rate of every tick, and after the last one."""
    engine = mlo.Engine([*([below] if below else []), problem])
    found = []
    for _ in range(ticks):
        found.append([group["lr"] for group in problem.optimizer.param_groups])
        engine.step()
    return [*found, [group["lr"] for group in problem.optimizer.param_groups]]


def trained(ticks, **settings):
    problem = Training(**settings).problem("net", nn.Linear(2, 1), own_loss, ticks=ticks)
    return [rate for (rate,) in rates(problem, ticks)]


@pytest.mark.parametrize("ticks", [1, 2, 7, 60])
def test_the_rate_is_half_a_cosine_that_ends_at_zero(ticks):
    found = trained(ticks, learning_rate=0.3)
    want = [0.15 * (1 + math.cos(math.pi * t / ticks)) for t in range(ticks + 1)]
    assert found == pytest.approx(want, rel=1e-9, abs=1e-15)
    assert found[0] == 0.3
    assert found[-1] == pytest.approx(0, abs=1e-15)


def half(share, start, end):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {
    "a cosine with a floor": (
        {"learning_rate": 0.025, "floor": 0.001},
        lambda t: half(t / 30, 0.025, 0.001),
    ),
    "a cosine by epochs": (
        {"learning_rate": 0.3, "floor": 0.1, "epoch": 7},
        lambda t: half(t // 7 * 7 / 30, 0.3, 0.1),
    ),
    "exponential": (
        {"learning_rate": 0.1, "schedule": "exponential", "factor": 0.97, "epoch": 4},
        lambda t: 0.1 * 0.97 ** (t // 4),
    ),
    "linear": ({"learning_rate": 0.5, "schedule": "linear"}, lambda t: 0.5 * (1 - t / 30)),
    "linear by epochs after a warm-up": (
        {"learning_rate": 0.5, "schedule": "linear", "epoch": 3, "warmup": 0.5},
        lambda t: 0.5 * (1 - t // 3 / 10) * min(1, (t // 3 + 1) / 5),
    ),
    "steps after a warm-up": (
        {"learning_rate": 0.5, "milestones": (0.5, 0.8), "warmup": 0.2},
        lambda t: 0.5 * min(1, (t + 1) / 6) * 0.1 ** ((t >= 15) + (t >= 24)),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_every_move_are_those_of_the_formula(name):
    settings, formula = SCHEDULES[name]
    want = [formula(t) for t in range(31)]
    assert trained(30, **settings) == pytest.approx(want, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": 0.2}, "floor: expected at most the learning rate"),
        ({"floor": 0.01, "schedule": "linear"}, "with schedule 'cosine' only"),
        ({"schedule": "steps"}, "milestones: expected some with schedule 'steps'"),
        ({"schedule": "linear", "milestones": [0.5]}, "milestones: expected some"),
        ({"schedule": "exponential"}, "epoch: expected"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_schedules_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        configure(Training, settings, title="training")


def test_the_floor_of_an_upper_problem_is_not_above_its_rates():
    with pytest.raises(ConfigurationError, match=r"floor.*0\.2"):
        upper_problem(5, floor=0.3)


@pytest.mark.parametrize(
    ("ticks", "milestones", "factor"),
    [
        (20, (0.5,), 0.1),
        (30, (0.6, 0.8, 0.9), 0.2),
        (7, (0.5, 0.75), 0.1),  # 3.5 and 5.25: rounded to 4 and 5
        (5, (0.5,), 0.1),  # 2.5: Python rounds to the even number
        (10, (0.51, 0.52), 0.1),  # one tick, twice the factor
        (10, (0.01,), 0.1),  # before the first tick
        (10, (0.99,), 0.1),  # after the last one
        (6, (0.5,), 1.0),
    ],
)
def test_the_rate_falls_by_the_factor_at_every_milestone(ticks, milestones, factor):
    found = trained(ticks, learning_rate=0.4, milestones=milestones, factor=factor)
    falls = [round(share * ticks) for share in milestones]
    want = [0.4 * factor ** sum(fall <= t for fall in falls) for t in range(ticks + 1)]
    assert found == pytest.approx(want, rel=1e-12)


def test_the_options_of_training_reach_the_optimizer_and_the_problem():
    net = nn.Linear(2, 1)
    training = Training(
        learning_rate=0.7, momentum=0.6, nesterov=True, weight_decay=0.01, clip_norm=2.5
    )
    method = mlo.Neumann(terms=3, alpha=0.1)
    problem = training.problem("net", net, own_loss, ticks=3, hypergradient=method, every=2)
    (group,) = problem.optimizer.param_groups
    assert type(problem.optimizer) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.7, 0.6, 0.01)
    assert group["nesterov"] is True
    assert group["dampening"] == 0
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert (problem.name, problem.clip_norm, problem.every) == ("net", 2.5, 2)
    assert problem.module is net
    assert problem.loss is own_loss
    assert problem.hypergradient is method


def test_the_defaults_of_training_are_those_of_the_field():
    (group,) = Training().problem("n", nn.Linear(1, 1), own_loss, ticks=1).optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.05, 0.9, 5e-4)
    assert group["nesterov"] is False


def test_a_run_by_these_settings_is_a_plain_loop_of_torch():
    training = Training(
        learning_rate=0.1, momentum=0.8, nesterov=True, weight_decay=0.1, clip_norm=0.5
    )
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    mlo.Engine([training.problem("net", nets[0], own_loss, ticks=6)]).run(ticks=6)
    plain = torch.optim.SGD(
        nets[1].parameters(), 0.1, momentum=0.8, nesterov=True, weight_decay=0.1
    )
    for tick in range(6):
        plain.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * tick / 6))
        plain.zero_grad()
        own_loss(nets[1]).backward()
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.5)
        plain.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def group(params, rate):
    return {"params": params, "lr": rate}


def upper_problem(ticks, groups=None, **settings):
    net = nn.Linear(3, 2)
    groups = groups(net) if groups else [group(net.parameters(), 0.2)]
    return Upper(**settings).problem("net", groups, own_loss, ticks=ticks, module=net)


def test_the_rates_of_an_upper_problem_fall_to_zero_each_from_its_own():
    problem = upper_problem(8, lambda net: [group([net.weight], 0.2), group([net.bias], 3.0)])
    found = rates(problem, 8)
    for place, start in enumerate((0.2, 3.0)):
        want = [start / 2 * (1 + math.cos(math.pi * t / 8)) for t in range(9)]
        assert [row[place] for row in found] == pytest.approx(want, rel=1e-9, abs=1e-14)


def test_a_constant_schedule_leaves_the_rates():
    assert rates(upper_problem(4, schedule="constant"), 4) == [[0.2]] * 5


@pytest.mark.parametrize(("ticks", "every"), [(12, 3), (11, 3), (5, 5), (6, 1)])
def test_an_upper_problem_that_moves_less_often_reaches_zero_with_its_last_move(ticks, every):
    def top_loss(net, low):
        return (own_loss(net) - low.weight.sum()).square()

    def low_loss(low):
        return own_loss(low)

    below = Training().problem("low", nn.Linear(1, 1), low_loss, ticks=ticks)
    net = nn.Linear(3, 2)
    problem = Upper(every=every).problem(
        "net", [group(net.parameters(), 0.2)], top_loss, ticks=ticks, module=net
    )
    found = rates(problem, ticks, below=below)
    made = ticks // every
    want = [0.1 * (1 + math.cos(math.pi * (t // every) / made)) for t in range(ticks + 1)]
    assert [rate for (rate,) in found] == pytest.approx(want, rel=1e-9, abs=1e-15)
    assert found[-1] == pytest.approx([0], abs=1e-15)


def test_the_options_of_an_upper_problem_reach_its_optimizer():
    problem = upper_problem(4, betas=(0.1, 0.2), weight_decay=0.3, clip_norm=0.4, every=2)
    (group,) = problem.optimizer.param_groups
    assert type(problem.optimizer) is torch.optim.Adam
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.1, 0.2), 0.3)
    assert (problem.clip_norm, problem.every) == (0.4, 2)
    for momentum in (0.0, 0.7):
        problem = upper_problem(4, optimizer="sgd", momentum=momentum, weight_decay=0.3)
        (group,) = problem.optimizer.param_groups
        assert type(problem.optimizer) is torch.optim.SGD
        assert (group["momentum"], group["nesterov"]) == (momentum, momentum > 0)
        assert (group["lr"], group["weight_decay"]) == (0.2, 0.3)


def test_groups_without_parameters_are_left_out():
    problem = upper_problem(2, lambda net: [group([], 9.0), group(iter([net.weight]), 0.1)])
    (left,) = problem.optimizer.param_groups
    assert left["lr"] == 0.1
    assert len(left["params"]) == 1


def test_a_group_may_have_a_decay_of_its_own():
    def groups(net):
        return [group([net.weight], 0.1), {**group([net.bias], 0.2), "weight_decay": 0.3}]

    found = upper_problem(2, groups, weight_decay=0.4).optimizer.param_groups
    assert [(each["lr"], each["weight_decay"]) for each in found] == [(0.1, 0.4), (0.2, 0.3)]


@pytest.mark.parametrize(
    ("model", "settings", "named"),
    [
        (Training, {"learning_rate": -0.1}, "learning_rate"),
        (Training, {"learning_rate": "fast"}, "learning_rate"),
        (Training, {"learning_rate": float("nan")}, "learning_rate"),
        (Training, {"momentum": 1.0}, "momentum"),
        (Training, {"weight_decay": -1}, "weight_decay"),
        (Training, {"clip_norm": 0}, "clip_norm"),
        (Training, {"factor": 0}, "factor"),
        (Training, {"factor": 1.1}, "factor"),
        (Training, {"milestones": (0.5, 0.3)}, "milestones"),
        (Training, {"milestones": (0.5, 0.5)}, "milestones"),
        (Training, {"milestones": (0.0,)}, "milestones"),
        (Training, {"milestones": (1.0,)}, "milestones"),
        (Training, {"milestones": (80.0, 90.0)}, "milestones"),
        (Training, {"nesterov": True, "momentum": 0}, "nesterov"),
        (Training, {"speed": 1}, "speed"),
        (Upper, {"optimizer": "lion"}, "optimizer"),
        (Upper, {"momentum": -0.1}, "momentum"),
        (Upper, {"weight_decay": -1}, "weight_decay"),
        (Upper, {"clip_norm": -1}, "clip_norm"),
        (Upper, {"schedule": "linear"}, "schedule"),
        (Upper, {"every": 0}, "every"),
        (Upper, {"betas": (0.5,)}, "betas"),
        (Upper, {"betas": (0.5, 1.5)}, "betas"),
    ],
)
def test_settings_that_do_not_fit_are_named(model, settings, named):
    with pytest.raises(ConfigurationError, match=rf"(?s)given.*{named}"):
        configure(model, settings, title="given")


def test_settings_are_read_from_text_as_the_command_line_gives_it():
    training = configure(
        Training, {"learning_rate": "0.5", "clip_norm": "none", "nesterov": "true"}, title="given"
    )
    assert (training.learning_rate, training.clip_norm, training.nesterov) == (0.5, None, True)


@pytest.mark.parametrize("ticks", [0, -3])
def test_a_run_without_a_move_is_refused(ticks):
    with pytest.raises(ConfigurationError, match=f"ticks: .*found {ticks}"):
        moves(ticks)
    with pytest.raises(ConfigurationError, match="ticks: "):
        Training().problem("net", nn.Linear(1, 1), own_loss, ticks=ticks)
    with pytest.raises(ConfigurationError, match="ticks: "):
        upper_problem(2, every=3)
