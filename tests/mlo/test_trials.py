"""Moves on trial: they lead where a real step would lead, and nobody but the engine notices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn, optim
from torch.optim.lr_scheduler import StepLR

import mlo

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


def network():
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def sgd(rate):
    return lambda params: optim.SGD(params, rate)


def fit(net, top):
    return (net(X) - top["a"]).square().mean()


class Outer(optim.Optimizer):
    """Wraps another optimizer; every second step goes only half the way from where it stood."""

    def __init__(self, inner):
        self.inner, self.steps = inner, 0
        params = [p for group in inner.param_groups for p in group["params"]]
        self.slow = [p.detach().clone() for p in params]
        super().__init__(params, {"lr": inner.defaults["lr"]})
        self.param_groups = inner.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        self.steps += 1
        if self.steps % 2 == 0:
            for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
                slow.add_(p - slow, alpha=0.5)
                p.copy_(slow)


class Scaled(optim.SGD):
    """An optimizer with an attribute and a method of its own."""

    def __init__(self, params, rate):
        super().__init__(params, rate)
        self.factor, self.scale = 0.5, self.scaled

    def scaled(self):
        for p in self.param_groups[0]["params"]:
            p.grad.mul_(self.factor)

    def step(self, closure=None):
        self.scale()
        return super().step(closure)


class Plain(optim.SGD):
    def __init__(self, params, rate):
        super().__init__(params, rate)
        self.factor = 0.5

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad.mul_(self.factor)
        return super().step(closure)


OPTIMIZERS = {
    "SGD": sgd(0.1),
    "momentum": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD, foreach": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, foreach=True),
    "SGD, fused": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, fused=True),
    "SGD, tensor rate": lambda ps: optim.SGD(ps, torch.tensor(0.1), momentum=0.9),
    "two groups": lambda ps: optim.SGD(
        [{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}], 0.1, momentum=0.9
    ),
    "Adam": lambda ps: optim.Adam(ps, 0.1),
    "Adam, foreach": lambda ps: optim.Adam(ps, 0.1, foreach=True),
    "Adam, fused": lambda ps: optim.Adam(ps, 0.1, fused=True),
    "Adam, amsgrad": lambda ps: optim.Adam(ps, 0.1, amsgrad=True),
    "Adam, tensor rate": lambda ps: optim.Adam(ps, torch.tensor(0.1)),
    "AdamW": lambda ps: optim.AdamW(ps, 0.1, weight_decay=0.1),
    "AdamW, fused": lambda ps: optim.AdamW(ps, 0.1, fused=True, amsgrad=True),
    "RMSprop": lambda ps: optim.RMSprop(ps, 0.1, momentum=0.5, centered=True),
    "RMSprop, foreach": lambda ps: optim.RMSprop(ps, 0.1, foreach=True),
    "Adagrad": lambda ps: optim.Adagrad(ps, 0.1, lr_decay=0.1),
    "Adagrad, fused": lambda ps: optim.Adagrad(ps, 0.1, fused=True),
    "NAdam": lambda ps: optim.NAdam(ps, 0.1),
    "NAdam, foreach": lambda ps: optim.NAdam(ps, 0.1, foreach=True),
    "a subclass with attributes": lambda ps: Plain(ps, 0.1),
    "a subclass that holds its own method": lambda ps: Scaled(ps, 0.1),
    "a wrapper": lambda ps: Outer(optim.SGD(ps, 0.1, momentum=0.9)),
    "a wrapper of Adam": lambda ps: Outer(optim.Adam(ps, 0.1)),
    "a wrapper of a subclass": lambda ps: Outer(Plain(ps, 0.1)),
}


def watched(net, optimizer, seen, **settings):
    """The network below a number that never moves, whose loss notes where it sees the network."""

    def judge(net):
        seen.append([p.detach().clone() for p in net.parameters()])
        return net(X).square().mean()

    low = mlo.Problem(
        "net", module=net, loss=fit, optimizer=optimizer, hypergradient=mlo.Direct(), **settings
    )
    top = mlo.Problem(
        "top",
        params={"a": torch.tensor(0.3)},
        loss=lambda net, top: judge(net) + 0.0 * top["a"],
        optimizer=sgd(0.0),
    )
    return mlo.Engine([low, top], lookahead=True, dry_run=False)


def equal(ones, others):
    return all(torch.equal(p, q) for p, q in zip(ones, others, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trial_leads_where_the_same_step_in_plain_torch_leads(name):
    net, twin = network(), network()
    live, plain = (OPTIMIZERS[name](list(n.parameters())) for n in (net, twin))
    seen, a = [], {"a": torch.tensor(0.3)}
    engine = watched(net, live, seen)
    for _ in range(5):
        before = [p.detach().clone() for p in net.parameters()]
        state = copy.deepcopy(live.state_dict())
        engine.hypergradient("top")
        plain.zero_grad()
        fit(twin, a).backward()
        plain.step()
        assert equal(seen.pop(), twin.parameters())
        # The live optimizer and what it holds have not noticed.
        assert equal(net.parameters(), before)
        torch.testing.assert_close(live.state_dict(), state, rtol=0, atol=0)
        engine.step()
        assert equal(seen.pop(), twin.parameters())
        assert equal(net.parameters(), twin.parameters())
        assert seen == []


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("repeat", [1, 3])
def test_hooks_of_an_optimizer_run_once_per_real_step_and_never_on_trial(lookahead, repeat):
    net, calls = network(), []
    optimizer = optim.SGD(net.parameters(), 0.1)
    optimizer.register_step_pre_hook(lambda *args: calls.append("before"))
    optimizer.register_step_post_hook(lambda *args: calls.append("after"))
    low = mlo.Problem("net", module=net, loss=fit, optimizer=optimizer, repeat=repeat)
    top = mlo.Problem(
        "top",
        params={"a": torch.tensor(0.3)},
        loss=lambda net: net(X).square().mean(),
        optimizer=sgd(0.1),
    )
    engine = mlo.Engine([low, top], lookahead=lookahead)
    for _ in range(3):
        engine.hypergradient("top")
        assert calls == []
        engine.step()
        engine.hypergradient("top")
        assert calls == ["before", "after"] * repeat
        calls.clear()


RATE, UPPER = 0.4, 0.3


def parabola(**settings):
    """f = (w - x)^2 / 2 below F = (w - 1)^2 / 2."""
    low = mlo.Problem(
        "low",
        params={"w": torch.tensor(2.0)},
        loss=lambda low, top: (low["w"] - top["x"]).square() / 2,
        optimizer=sgd(RATE),
        **settings.pop("low", {}),
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.tensor(-1.0)},
        loss=lambda low: (low["w"] - 1).square() / 2,
        optimizer=sgd(UPPER),
    )
    return mlo.Engine([low, top], **settings)


def standing(engine):
    low, top = engine.problems["low"].module, engine.problems["top"].module
    return float(low["w"].detach()), float(top["x"].detach())


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("repeat", [1, 3])
def test_all_updates_of_a_move_and_its_trial_have_one_rate_and_then_the_scheduler_steps(
    repeat, lookahead
):
    """The last of n updates w' = w - r (w - x) has dw'/dx = r, and all lead to x + (1 - r)^n."""
    engine = parabola(
        low={"repeat": repeat, "scheduler": lambda o: StepLR(o, 1, gamma=0.5)}, lookahead=lookahead
    )
    w, x = standing(engine)
    for tick in range(4):
        rate = RATE * 0.5**tick
        factor = (1 - rate) ** repeat
        moved = x + factor * (w - x)
        slope = (moved - 1) * rate
        if lookahead:
            assert float(engine.hypergradient("top")["x"]) == pytest.approx(slope, rel=1e-12)
        record = engine.step()
        x = x - UPPER * slope
        w = x + factor * (w - x) if lookahead else moved
        assert standing(engine) == pytest.approx((w, x), rel=1e-12)
        moves = [m for m in record.moves if m.problem == "low"]
        assert [m.learning_rate for m in moves] == pytest.approx([rate] * repeat, rel=1e-12)
        (top,) = (m for m in record.moves if m.problem == "top")
        assert float(top.gradient_norm) == pytest.approx(abs(slope), rel=1e-12)
    assert engine.problems["low"].scheduler.last_epoch == 4


METHODS = [mlo.OneStep(), mlo.FiniteDifference(), mlo.Neumann(), mlo.Dense()]
KEPT = {
    "always due": ({}, True, set()),
    "not always due": ({"every": 2}, True, {"low"}),
    "after a while": ({"warmup": 1}, True, {"low"}),
    "without look-ahead": ({}, False, {"low"}),
}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("case", KEPT)
def test_a_move_is_recorded_only_where_somebody_may_look_at_it_and_all_can_be_asked(case, method):
    settings, lookahead, kept = KEPT[case]
    engine = parabola(low={"hypergradient": method, **settings}, lookahead=lookahead)
    # The parabola has curvature 1: ten terms at its rate, or the whole inverse.
    factor = {"Neumann": 1 - (1 - RATE) ** 10, "Dense": 1.0}.get(type(method).__name__, RATE)
    for tick in range(5):
        w, x = standing(engine)
        trial = lookahead or (tick == 0 and "moves" in method.needs)
        seen = w - RATE * (w - x) if trial else w
        found = float(engine.hypergradient("top")["x"])
        assert found == pytest.approx((seen - 1) * factor, rel=1e-9)
        assert set(engine._mover.moves) == (kept if w != 2.0 else set())
        engine.step()
