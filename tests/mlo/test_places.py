"""Modules whose tensors hang in odd places: nothing live is touched, and real moves are torch's."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import mlo

RATE = 0.1
X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


def sgd(params):
    return torch.optim.SGD(params, RATE)


class Twice(nn.Module):
    """One submodule under two paths, as in a siamese network."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.again = nn.ModuleList([self.first])

    def forward(self, x):
        return self.again[0](self.first(x).tanh())


class Tied(nn.Module):
    """One parameter and one buffer under two names."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.register_buffer("count", torch.zeros(()))
        self.two.register_buffer("count", self.count)

    def forward(self, x):
        self.two.count.add_(1)
        return self.two(self.one(x).tanh()) * self.count.cos()


class Late(nn.Module):
    """A buffer that the first forward makes, and one that every forward makes anew."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", None)
        self.register_buffer("queue", torch.zeros(0, 3))
        self.register_buffer("scale", torch.ones(3, dtype=torch.int64))

    def forward(self, x):
        h = self.linear(x)
        self.seen = torch.zeros(()) if self.seen is None else self.seen + 1
        self.queue = torch.cat([self.queue, h.detach()])[-7:]
        self.scale = h.detach().mean()
        return h * (1 + self.queue.mean()) + self.seen


class Normed(nn.Module):
    """Parametrizations: one with buffers that every training forward writes in place."""

    def __init__(self):
        super().__init__()
        self.one = parametrizations.spectral_norm(nn.Linear(3, 3))
        self.two = parametrizations.weight_norm(nn.Linear(3, 3))
        self.register_buffer("mean", torch.zeros(3), persistent=False)

    def forward(self, x):
        h = self.two(self.one(x).tanh())
        self.mean.lerp_(h.detach().mean(0), 0.1)
        return h - self.mean


MODULES = [Twice, Tied, Late, Normed]
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True])


def fit(net, upper):
    return (net(X).square().mean() * upper["a"].exp()) + net(X).mean()


def judge(net):
    return (net(X) - 1.0).square().mean()


def engine(net, **settings):
    lower = mlo.Problem("net", module=net, loss=fit, optimizer=sgd(net.parameters()))
    upper = mlo.Problem("upper", params={"a": torch.tensor(0.3)}, loss=judge, optimizer=sgd)
    return mlo.Engine([lower, upper], **settings)


def live(module):
    """Every tensor by module and name, with its identity."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for name, t in [*part._parameters.items(), *part._buffers.items()]:
            found[f"{path}.{name}"] = (id(t), None if t is None else t.detach().tolist())
    return found


@pytest.mark.parametrize("make", MODULES)
@LOOKAHEAD
def test_building_and_asking_touch_no_tensor_of_the_module(make, lookahead):
    net = make()
    before = live(net)
    made = engine(net, lookahead=lookahead)
    assert live(net) == before
    made.hypergradient("upper")
    assert live(net) == before
    made.step()
    before = live(net)
    made.hypergradient("upper")
    assert live(net) == before


@pytest.mark.parametrize("make", MODULES)
@LOOKAHEAD
def test_the_hypergradient_is_that_of_the_step(make, lookahead):
    net = make()
    found = engine(net, lookahead=lookahead).hypergradient("upper")["a"]
    a = torch.tensor(0.3, requires_grad=True)
    trial, after = copy.deepcopy(net), copy.deepcopy(net)
    params = list(trial.parameters())
    slopes = torch.autograd.grad(fit(trial, {"a": a}), params, create_graph=True)
    with torch.no_grad():
        for p, q, g in zip(after.parameters(), params, slopes, strict=True):
            p.copy_(q - RATE * g)
    v = torch.autograd.grad(judge(after), list(after.parameters()))
    (want,) = torch.autograd.grad(slopes, a, [-RATE * x for x in v])
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", MODULES)
@LOOKAHEAD
def test_real_moves_leave_the_buffers_that_plain_torch_leaves(make, lookahead):
    net = make()
    plain = copy.deepcopy(net)
    made, optimizer = engine(net, lookahead=lookahead), sgd(plain.parameters())
    for _ in range(3):
        a = made.problems["upper"].module["a"].detach().clone()
        a_used = made.step().moves  # under lookahead the upper moves before the real move
        if lookahead:
            a = made.problems["upper"].module["a"].detach()
        optimizer.zero_grad()
        fit(plain, {"a": a}).backward()
        optimizer.step()
        assert {m.problem for m in a_used} == {"net", "upper"}
    found, want = (dict([*n.named_parameters(), *n.named_buffers()]) for n in (net, plain))
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].dtype == value.dtype, key
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-14, msg=key)
    held = {id(p) for g in made.problems["net"].optimizer.param_groups for p in g["params"]}
    assert {id(p) for p in net.parameters()} == held


def test_a_frozen_backbone_may_be_held_by_two_problems():
    backbone = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    heads = [nn.Sequential(backbone, nn.Linear(3, 1)) for _ in range(2)]
    one = mlo.Problem(
        "one",
        module=heads[0],
        loss=lambda one, two: (one(X) * two[1].bias.exp()).square().mean(),
        optimizer=sgd(heads[0][1].parameters()),
    )
    two = mlo.Problem(
        "two",
        module=heads[1],
        loss=lambda two, one: (one(X) - two(X)).square().mean(),
        optimizer=sgd(heads[1][1].parameters()),
    )
    made = mlo.Engine([one, two])
    for _ in range(3):
        made.hypergradient("two")
        made.step()
    # Once in each real move of one, twice in each of two, as in plain torch.
    assert int(backbone[1].num_batches_tracked) == 9
    assert heads[0][0] is heads[1][0] is backbone


class Criterion(nn.Module):
    """A loss that is a module, with a counter, and with a module of its own where one is given."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net
        self.register_buffer("count", torch.zeros(()))

    def forward(self, net, upper):
        self.count.add_(1)
        return ((self.net or net)(X) * upper["a"].exp()).square().mean()


def test_a_loss_that_is_a_module_is_called_as_any_other():
    net, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(net.state_dict())
    found = []
    plain = Criterion().forward
    for module, loss in ((net, Criterion()), (twin, plain)):
        lower = mlo.Problem(
            "net",
            module=module,
            loss=loss,
            optimizer=sgd(module.parameters()),
            reads=("net", "upper"),
        )
        upper = mlo.Problem("upper", params={"a": torch.tensor(0.3)}, loss=judge, optimizer=sgd)
        found.append(mlo.Engine([lower, upper]).hypergradient("upper")["a"])
    assert torch.equal(*found)


def test_a_loss_that_is_a_module_and_holds_what_it_does_not_read_is_named():
    net = nn.Linear(3, 2)
    lower = mlo.Problem("net", module=net, loss=fit, optimizer=sgd(net.parameters()))
    upper = mlo.Problem("upper", params={"a": torch.tensor(0.3)}, loss=judge, optimizer=sgd)
    other = mlo.Problem(
        "other",
        params={"a": torch.tensor(0.3)},
        loss=Criterion(net),
        optimizer=sgd,
        reads=("upper", "other"),
    )
    with pytest.raises(mlo.errors.ClosureError, match=r"'other'.*'net'"):
        mlo.Engine([lower, upper, other])


def test_under_autocast_nothing_is_kept_from_tick_to_tick():
    net = nn.Linear(64, 64).float()
    x = X.float().repeat(1, 22)[:, :64]
    lower = mlo.Problem(
        "net",
        module=net,
        loss=lambda net, upper: (net(x) * upper["a"].float().exp()).square().mean(),
        optimizer=sgd(net.parameters()),
    )
    upper = mlo.Problem(
        "upper",
        params={"a": torch.tensor(0.3)},
        loss=lambda net: (net(x) - 1).square().mean(),
        optimizer=sgd,
    )
    made = mlo.Engine([lower, upper])

    def tensors():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    with torch.autocast("cpu", dtype=torch.bfloat16):
        made.run(ticks=3, record_every=100)
        before = tensors()
        made.run(ticks=20, record_every=100)
        assert tensors() <= before + 5


def test_a_device_keeps_the_state_of_a_loaded_optimizer():
    net, twin = Twice(), Twice()
    twin.load_state_dict(net.state_dict())
    made = [torch.optim.SGD(n.parameters(), RATE, momentum=0.9) for n in (net, twin)]
    for part, optimizer in zip((net, twin), made, strict=True):
        part(X).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    twin(X).mean().backward()
    made[1].step()
    problem = mlo.Problem("net", module=net, loss=lambda net: net(X).mean(), optimizer=made[0])
    assert repr(problem) == "Problem('net', reads=('net',))"
    mlo.Engine([problem], device="cpu").step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))
