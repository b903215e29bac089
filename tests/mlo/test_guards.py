"""Losses that reach around their arguments, shared parameters, and activation checkpointing."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import mlo
from mlo.errors import CheckpointingError, ClosureError, DeclarationError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")

RATE = 0.1
X = [[0.5, -1.0, 0.3], [1.5, 0.2, -0.7], [-0.4, 0.8, 1.1], [0.9, -0.6, -1.3]]
METHODS = {
    "OneStep": mlo.OneStep(),
    "FiniteDifference": mlo.FiniteDifference(radius=1e-4),
    "Dense": mlo.Dense(damping=1.0),
}
METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])


def sgd(params):
    return torch.optim.SGD(params, RATE)


def x():
    return torch.tensor(X)


def pair(net, loss, judge=None, method=None, other=None, **options):
    """`net`, whose loss reads `upper`, and `upper`, judged at `net`."""
    lower = mlo.Problem(
        "net",
        module=net,
        loss=loss,
        optimizer=sgd(p for p in net.parameters() if p.requires_grad),
        hypergradient=method,
    )
    upper = mlo.Problem(
        "upper",
        module=other or nn.ParameterDict({"c": nn.Parameter(torch.tensor(0.4))}),
        loss=judge or (lambda net, upper: (net(x()) - 1.0).square().mean() + upper["c"] ** 2),
        optimizer=sgd,
    )
    return mlo.Engine([lower, upper], **options)


def used_as_argument(net, upper):
    return (net(x()) * upper["c"].exp()).square().mean()


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


class Holder(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part, self.extra = part, nn.Parameter(torch.ones(2))

    def total(self):
        return sum(p.square().sum() for p in self.parameters())


def parameter(tensor, *, trainable=True):
    return nn.Parameter(tensor.detach(), requires_grad=trainable)


def cut(layer, *indices):
    """Parameters that look into the weight of a layer."""
    return tuple(parameter(layer.weight.detach()[i]) for i in indices)


# Given a layer with a weight of 3 x 4: what two problems hold.
SHARED = {
    "the same tensor": lambda m: (m.weight, m.weight),
    "a submodule": lambda m: (m, nn.Sequential(m, nn.Tanh())),
    "a parameter of a layer": lambda m: (m.weight, m),
    "a frozen twin": lambda m: (m.weight, parameter(m.weight, trainable=False)),
    "a view of all": lambda m: (m.weight, parameter(m.weight.view(-1))),
    "a view of the beginning": lambda m: (m.weight, *cut(m, 0)),
    "a view of the middle": lambda m: (m.weight, *cut(m, 1)),
    "the middle of a larger one": lambda m: (*cut(m, 1), m.weight),
    "rows that overlap": lambda m: cut(m, slice(0, 2), slice(1, 3)),
    "a column": lambda m: (m.weight, *cut(m, (slice(None), 1))),
    "a row and a column": lambda m: cut(m, 1, (slice(None), 2)),
}
SEPARATE = {
    "rows": lambda m: cut(m, slice(0, 2), slice(2, 3)),
    "equal values": lambda m: (m.weight, parameter(m.weight.clone())),
    "nothing inside": lambda m: cut(m, slice(0, 0), slice(0, 0)),
}


def two(first, second):
    problems = [
        mlo.Problem(
            name,
            module=Holder(part),
            loss=lambda one, two: one.total() * two.total(),
            optimizer=lambda params: sgd(p for p in params if p.requires_grad),
        )
        for name, part in (("one", first), ("two", second))
    ]
    return mlo.Engine(problems)


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_two_problems_that_share_a_parameter_are_refused(make):
    with pytest.raises(ParameterError, match=r"'(one|two)' and '(one|two)' share.*Copy the module"):
        two(*make(nn.Linear(4, 3)))


@pytest.mark.parametrize("make", SEPARATE.values(), ids=SEPARATE)
def test_parameters_that_only_look_alike_are_not_shared(make):
    two(*make(nn.Linear(4, 3))).step()


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    return net


def partly_frozen():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    net[0].weight.requires_grad_(False)
    return net


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(3, 2)

    def forward(self, inputs):
        return self.cell(inputs)[0]


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ParameterDict({"w": torch.randn(3, 2), "b": torch.randn(2)})

    def forward(self, inputs):
        return inputs @ self.inner["w"] + self.inner["b"]


NETS = {
    "tied weights": tied,
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(3, 2)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(3, 3)),
    "spectral_norm, eval": lambda: parametrizations.spectral_norm(nn.Linear(3, 2)).eval(),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(3, 2)),
    "frozen parameters": partly_frozen,
    "ParameterDict": Dictionary,
    "LSTM": Recurrent,
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@METHOD
@LOOKAHEAD
def test_a_module_used_through_its_argument_never_trips_the_guard(make, method, lookahead):
    net = make()
    own = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}
    buffers = {k: b.clone() for k, b in net.named_buffers()}
    moving = [k for k, p in net.named_parameters() if p.requires_grad]
    twin = copy.deepcopy(net)
    engine = pair(net, used_as_argument, method=method, lookahead=lookahead)
    found = engine.hypergradient("upper")["c"]
    for _ in range(2):
        engine.step()
    assert not torch.equal(net.state_dict()[moving[0]], own[moving[0]])

    def at(tensors):
        copies = {k: b.clone() for k, b in buffers.items()}
        return functional_call(twin, {**tensors, **copies}, (x(),))

    c = torch.tensor(0.4, requires_grad=True)
    inner = (at(own) * c.exp()).square().mean()
    slopes = torch.autograd.grad(inner, [own[k] for k in moving], create_graph=True)
    moved = {k: own[k] - RATE * g for k, g in zip(moving, slopes, strict=True)}
    if isinstance(method, mlo.Dense):
        return
    outer = (at({**own, **moved}) - 1.0).square().mean() + c**2
    (want,) = torch.autograd.grad(outer, c)
    # The difference errs by the square of its radius.
    tolerance = 1e-12 if isinstance(method, mlo.OneStep) else 1e-6
    torch.testing.assert_close(found, want, rtol=tolerance, atol=0)


@pytest.mark.parametrize("names", [("train", "type"), ("eval", "forward"), ("_modules", "data")])
def test_problems_may_be_named_like_what_a_module_has(names):
    low, high = names
    engine = mlo.Engine(
        [
            mlo.Problem(
                low,
                params={"w": torch.tensor(2.0)},
                loss=lambda a, b: (a["w"] - b["w"]) ** 2,
                reads=(low, high),
                optimizer=sgd,
            ),
            mlo.Problem(
                high,
                params={"w": torch.tensor(1.0)},
                loss=lambda a: a["w"] ** 2,
                reads=(low,),
                optimizer=sgd,
            ),
        ]
    )
    # w' = 2 - 0.2 (2 - c), so the answer is 2 w' 0.2 with w' = 1.8.
    torch.testing.assert_close(engine.hypergradient(high)["w"], torch.tensor(0.72))


@pytest.mark.parametrize("key", ["train", "type", "keys", "values", "forward", "a.b"])
def test_a_parameter_whose_name_cannot_serve_is_refused_by_name(key):
    def found():
        problem = mlo.Problem(
            "p", params={key: torch.tensor(1.0)}, loss=lambda p: p[key] ** 2, optimizer=sgd
        )
        return list(mlo.Engine([problem]).hypergradient("p"))

    with contextlib.suppress(DeclarationError):
        assert found() == [key]
        return
    with pytest.raises(DeclarationError, match=rf"problem 'p'.*'{key}'"):
        found()


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
