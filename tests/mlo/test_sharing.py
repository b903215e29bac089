"""Parameters that two problems share, and modules that may hold theirs as they like."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

import mlo
from mlo.errors import DeclarationError, ParameterError

from .paired import LOOKAHEAD, METHOD, RATE, pair, sgd, used_as_argument, x

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")


@torch.no_grad()
def frozen(tensor):
    return 1.0 * tensor


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
