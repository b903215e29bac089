"""Losses that reach around their arguments, and checkpointing inside of them."""

from __future__ import annotations

import contextlib
import functools
import warnings

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from mlo.errors import CheckpointingError, ClosureError

from .paired import LOOKAHEAD, METHOD, RATE, pair, used_as_argument, x

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")


class Captured:
    """What a loss can capture: modules and tensors of both problems."""

    def __init__(self):
        torch.manual_seed(1)
        self.net = nn.Linear(3, 2)
        self.upper = nn.ParameterDict({"c": nn.Parameter(torch.tensor(0.4))})
        self.weight, self.bias, self.c = self.net.weight, self.net.bias, self.upper["c"]
        self.view, self.total = self.weight.view(-1)[:3], self.weight.sum()
        self.deeper = functools.partial(lambda get: get(), lambda: self.c * 1.0)
        self.other = nn.Linear(2, 1)


# name -> (given what can be captured: the loss of `net`; what the message must name)
AROUND = {
    "another's module": (
        lambda o: lambda net: (net(x()) * o.upper["c"]).square().mean(),
        "'c' of problem 'upper'",
    ),
    "a parameter": (
        lambda o: lambda net, upper: used_as_argument(net, upper) + o.bias.sum(),
        "'bias' of problem 'net'",
    ),
    "a parameter times zero": (
        lambda o: lambda net, upper: used_as_argument(net, upper) + 0.0 * o.bias.sum(),
        "'bias' of problem 'net'",
    ),
    "through nested functions": (
        lambda o: lambda net, upper: used_as_argument(net, {"c": o.deeper()}),
        "'c' of problem 'upper'",
    ),
    "in an argument with a default": (
        lambda o: lambda net, upper, own=o.weight: used_as_argument(net, upper) + own.sum(),
        "'weight' of problem 'net'",
    ),
    "a view made before": (
        lambda o: lambda net, upper: used_as_argument(net, upper) + o.view.sum(),
        "'weight' of problem 'net'",
    ),
    "a value made before": (
        lambda o: lambda net, upper: used_as_argument(net, upper) + o.total,
        "'weight' of problem 'net'",
    ),
    "returned as it is": (lambda o: lambda net, upper: o.c, "'c' of problem 'upper'"),
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("name", AROUND)
def test_a_loss_that_reaches_around_its_arguments_is_refused_and_the_parameter_named(name, dry_run):
    captured = Captured()
    make, culprit = AROUND[name]

    def judge(net, upper):
        return used_as_argument(net, upper) + upper["c"] ** 2

    def build():
        return pair(captured.net, make(captured), judge, other=captured.upper, dry_run=dry_run)

    message = rf"problem 'net': its loss uses .*{culprit}.*Name the problem as an argument"
    attempts = [build]
    if not dry_run:
        engine = build()
        attempts = [engine.step, lambda: engine.hypergradient("net")]
    for attempt in attempts:
        with pytest.raises(ClosureError, match=message) as caught:
            attempt()
        assert caught.value.problem == "net"


@METHOD
@LOOKAHEAD
def test_an_upper_loss_that_reaches_around_its_arguments_is_refused_when_it_moves(
    method, lookahead
):
    captured, armed = Captured(), []

    def judge(net, upper):
        return (net(x()) - upper["c"]).square().mean() + sum(p.sum() for p in armed)

    engine = pair(captured.net, used_as_argument, judge, method=method, lookahead=lookahead)
    engine.step()
    armed.append(captured.bias)
    for attempt in (engine.step, lambda: engine.hypergradient("upper")):
        with pytest.raises(ClosureError, match=r"problem 'upper'.*'bias' of problem 'net'"):
            attempt()


# What gives the right answer: constants, and modules that are named as well, since the engine puts
# the tensors into the module itself.
HARMLESS = {
    "detached": lambda o: (
        lambda net, upper: used_as_argument(net, upper) + (net.weight * o.weight.detach()).sum()
    ),
    "without gradients": lambda o: (
        lambda net, upper: used_as_argument(net, upper) + (net.weight * frozen(o.weight)).sum()
    ),
    "a module of nobody's": lambda o: (
        lambda net, upper: (
            used_as_argument(net, upper) + 0.0 * o.other(net(x())).sum() + net.weight.square().sum()
        )
    ),
    "its own module, named as well": lambda o: (
        lambda net, upper: used_as_argument(o.net, upper) + (net.weight * o.net.weight).sum()
    ),
    "both modules, named as well": lambda o: (
        lambda net, upper: used_as_argument(o.net, o.upper) + net.weight.square().sum()
    ),
}


@torch.no_grad()
def frozen(tensor):
    return 1.0 * tensor


@pytest.mark.parametrize("name", HARMLESS)
@LOOKAHEAD
def test_what_the_engine_can_replace_or_need_not_replace_may_come_from_outside(name, lookahead):
    o = Captured()
    w, b = o.weight.detach().clone(), o.bias.detach().clone()
    engine = pair(o.net, HARMLESS[name](o), other=o.upper, lookahead=lookahead)
    own, c = [w.clone().requires_grad_(), b.clone().requires_grad_()], torch.tensor(0.4)
    c.requires_grad_()
    loss = ((x() @ own[0].T + own[1]) * c.exp()).square().mean()
    loss = loss + (own[0] * (w if name in ("detached", "without gradients") else own[0])).sum()
    slopes = torch.autograd.grad(loss, own, create_graph=True)
    moved = [p - RATE * g for p, g in zip(own, slopes, strict=True)]
    outer = (x() @ moved[0].T + moved[1] - 1.0).square().mean() + c**2
    (want,) = torch.autograd.grad(outer, c)
    torch.testing.assert_close(engine.hypergradient("upper")["c"], want, rtol=1e-12, atol=0)


def parameter(tensor, *, trainable=True):
    return nn.Parameter(tensor.detach(), requires_grad=trainable)


def packed(value):
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        return value()


def offloaded(value):
    with save_on_cpu():
        return value()


WRAPPED = {
    "checkpoint": lambda net, h: checkpoint(net, h, use_reentrant=False),
    "checkpoint of a method": lambda net, h: checkpoint(net.forward, h, use_reentrant=False),
    "reentrant checkpoint": lambda net, h: checkpoint(net, h, use_reentrant=True),
    "saved_tensors_hooks": lambda net, h: packed(lambda: net(h)),
    "save_on_cpu": lambda net, h: offloaded(lambda: net(h)),
}


@pytest.mark.parametrize("where", ["net", "upper"])
@pytest.mark.parametrize("call", WRAPPED.values(), ids=WRAPPED)
@METHOD
@LOOKAHEAD
def test_activation_checkpointing_gives_right_values_or_is_named(where, call, method, lookahead):
    def run(wrap):
        def inner(module, inputs):
            return wrap(module, inputs) if wrap else module(inputs)

        lower, upper = (inner if where == w else (lambda m, h: m(h)) for w in ("net", "upper"))
        torch.manual_seed(1)
        # The input depends on parameters, since reentrant checkpointing needs an input that does.
        engine = pair(
            nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)),
            lambda net, upper: (lower(net[1:], net[0](x())) * upper["c"].exp()).square().mean(),
            lambda net: (upper(net[1:], net[0](x())) - 1.0).square().mean(),
            method=method,
            lookahead=lookahead,
        )
        return engine.hypergradient("upper")["c"]

    want = run(None)
    with contextlib.suppress(CheckpointingError):
        torch.testing.assert_close(run(call), want, rtol=1e-12, atol=0)
        return
    with pytest.raises(CheckpointingError, match=rf"'{where}'.*checkpointing.*take it out"):
        run(call)
    # The refusal leaves PyTorch as it was.
    assert packed(torch.ones(1, requires_grad=True).exp).requires_grad


def test_reentrant_checkpointing_of_the_data_alone_is_not_silent():
    """PyTorch drops the gradients of what is inside; its warning must reach the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((CheckpointingError, UserWarning), match=r"checkpoint|requires_grad"):
            pair(
                nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)),
                lambda net, upper: (
                    (net[1](checkpoint(net[0], x(), use_reentrant=True)) * upper["c"]) ** 2
                ).mean(),
            ).hypergradient("upper")


def test_saved_tensor_hooks_around_the_engine_are_the_users_own():
    """Hooks that are there already recompute nothing: the same answer, or a typed refusal."""
    torch.manual_seed(1)
    engine = pair(nn.Linear(3, 2), used_as_argument)
    want = engine.hypergradient("upper")["c"]
    with contextlib.suppress(CheckpointingError), save_on_cpu():
        assert torch.equal(engine.hypergradient("upper")["c"], want)
    assert torch.equal(engine.hypergradient("upper")["c"], want)
