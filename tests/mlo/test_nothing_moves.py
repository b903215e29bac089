"""A hypergradient leaves everything as it was, whether it succeeds, raises or meets a NaN."""

from __future__ import annotations

import contextlib
import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.data import DataLoader

import mlo
from mlo.errors import DoubleBackwardError

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")

METHODS = {
    "Direct": mlo.Direct(),
    "OneStep": mlo.OneStep(),
    "FiniteDifference": mlo.FiniteDifference(check=True),
    "forward difference": mlo.FiniteDifference(scheme="forward"),
    "Neumann": mlo.Neumann(terms=3, alpha=0.05),
    "ConjugateGradient": mlo.ConjugateGradient(iterations=4, damping=1.0),
    "Dense": mlo.Dense(damping=1.0),
}
METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
TICKS = pytest.mark.parametrize("ticks", [0, 2])


class Net(nn.Module):
    """All that has a state: a frozen layer, normalization, dropout, a part in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 2).requires_grad_(False)
        self.norm = nn.BatchNorm1d(2)
        self.fixed = nn.BatchNorm1d(2, affine=False).eval()
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.drop(self.fixed(self.norm(self.frozen(x)).tanh())))[:, 0]


class Trip:
    """Counts the calls of all losses, and puts something in the place of what the k-th returns."""

    def __init__(self):
        self.calls, self.at, self.effect = 0, 0, None

    def arm(self, at, effect=None):
        self.calls, self.at, self.effect = 0, at, effect

    def __call__(self, value):
        self.calls += 1
        return self.effect(value) if self.calls == self.at else value


def program(trip, method, *, shuffle=True, **options):
    """Learning From Mistakes in small; every loss draws random numbers of all three kinds."""

    def learn(learner, upper, train):
        x, y = train
        noise = random.random() + np.random.rand() + torch.rand(())
        return trip((upper.weight[: len(x)] * (learner(x) - y) ** 2).mean() * (1 + 0.1 * noise))

    def relearn(relearner, learner, upper, train):
        x, y = train
        mistakes = (learner(x) - y) ** 2 * upper.gate(x)
        return trip((mistakes.sigmoid() * (relearner(x) - y) ** 2).mean())

    def judge(relearner, learner, upper, valid):
        x, y = valid
        loss = (upper.gate(x) * ((relearner(x) - y) ** 2 + 0.1 * learner(x) ** 2)).mean()
        return trip(loss + 0.1 * upper.weight.square().sum() * (1 + np.random.rand()))

    class Upper(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.gate_net = nn.Parameter(torch.ones(8)), Net()

        def gate(self, x):
            return self.gate_net(x).sigmoid()

    seed()
    modules = {"learner": Net(), "relearner": Net(), "upper": Upper()}
    losses = {"learner": learn, "relearner": relearn, "upper": judge}
    problems = []
    for name, module in modules.items():
        optimizer = torch.optim.Adam(module.parameters(), 0.05)
        problems.append(
            mlo.Problem(
                name,
                module=module,
                loss=losses[name],
                optimizer=optimizer,
                scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 2),
                hypergradient=method,
                updates_buffers=("upper",) if name == "relearner" else (),
            )
        )
    data = list(zip(torch.randn(12, 3), torch.randn(12), strict=True))
    loader = DataLoader(data, batch_size=4, shuffle=True) if shuffle else batched(data)
    streams = {"train": loader, "valid": loader}
    return mlo.Engine(problems, streams, **options)


def batched(data):
    return list(DataLoader(data, batch_size=4))


def seed():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


def still(thing):
    """Plain values that are equal only where every bit is."""
    if isinstance(thing, torch.Tensor):
        return str(thing.dtype), tuple(thing.shape), thing.detach().numpy().tobytes()
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if isinstance(thing, dict):
        return {key: still(value) for key, value in thing.items()}
    return [still(value) for value in thing] if isinstance(thing, (list, tuple)) else thing


def state(engine):
    """All values that a run depends on."""
    found = {"random": still([random.getstate(), np.random.get_state(), torch.get_rng_state()])}
    for name, problem in engine.problems.items():
        parameters = dict(problem.module.named_parameters())
        found[name] = still(
            {
                "parameters": parameters,
                "needs": {k: p.requires_grad for k, p in parameters.items()},
                "grad": {k: p.grad for k, p in parameters.items()},
                "buffers": dict(problem.module.named_buffers()),
                "optimizer": problem.optimizer.state_dict(),
                "scheduler": problem.scheduler and problem.scheduler.state_dict(),
                "training": [part.training for part in problem.module.modules()],
            }
        )
    return found


def structure(engine):
    """Which objects hang where: a functional call puts others in their place for a while."""
    parts = [p for problem in engine.problems.values() for p in problem.module.named_modules()]
    tensors = [t for _, part in parts for t in (*part.parameters(), *part.buffers())]
    attributes = [(key, type(part), sorted(vars(part))) for key, part in parts]
    return attributes, [id(part) for _, part in parts], [id(t) for t in tensors]


def advanced(engine, ticks):
    for _ in range(ticks):
        engine.step()
    for i, p in enumerate(p for e in engine.problems.values() for p in e.module.parameters()):
        # Gradients that the user holds; some have none.
        p.grad = torch.full_like(p, float(i)) if i % 3 else None
    return engine


def raises(kind):
    def effect(value):
        raise kind("in the middle")

    return effect


EFFECTS = {
    "error": raises(ZeroDivisionError),
    "interrupt": raises(KeyboardInterrupt),
    "NaN": lambda value: value * float("nan"),
    "infinity": lambda value: value / 0.0,
}


@METHOD
@LOOKAHEAD
@TICKS
def test_nothing_moves_whatever_happens_at_any_call_of_any_loss(method, lookahead, ticks):
    trip = Trip()
    engine = advanced(program(trip, method, lookahead=lookahead), ticks)
    before, objects = state(engine), structure(engine)
    for name in ("upper", "relearner"):
        trip.arm(0)
        answer = still(engine.hypergradient(name))
        calls = trip.calls
        assert (state(engine), structure(engine)) == (before, objects)
        for kind, effect in EFFECTS.items():
            for at in range(1, calls + 1):
                trip.arm(at, effect)
                if kind in ("error", "interrupt"):
                    with pytest.raises((ZeroDivisionError, KeyboardInterrupt), match="middle"):
                        engine.hypergradient(name)
                else:
                    engine.hypergradient(name)
                assert trip.calls >= at
                assert state(engine) == before, (name, kind, at)
                assert structure(engine) == objects, (name, kind, at)
        trip.arm(0)
        assert still(engine.hypergradient(name)) == answer
        assert state(engine) == before


def path(make, ticks, *, ask):
    """The states after each tick, with or without a look at every hypergradient before it."""
    engine, states = make(), []
    seed()
    for _ in range(ticks):
        if ask:
            for name in engine.problems:
                engine.hypergradient(name)
        engine.step()
        states.append(state(engine))
    return states


@METHOD
@LOOKAHEAD
def test_steps_after_hypergradients_equal_steps_without_them(method, lookahead):
    def make():
        return program(Trip(), method, lookahead=lookahead)

    assert path(make, 4, ask=True) == path(make, 4, ask=False)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_steps_after_hypergradients_equal_steps_without_them_where_nothing_was_drawn(shuffle):
    def make():
        return program(Trip(), mlo.OneStep(), shuffle=shuffle, dry_run=False)

    assert path(make, 4, ask=True) == path(make, 4, ask=False)


@LOOKAHEAD
def test_a_hypergradient_is_the_same_with_gradients_switched_off(lookahead):
    engine = advanced(program(Trip(), mlo.OneStep(), lookahead=lookahead), 2)
    answer = still(engine.hypergradient("upper"))
    with torch.no_grad():
        assert still(engine.hypergradient("upper")) == answer
        assert not torch.is_grad_enabled()


class Broken(mlo.Hypergradient):
    """Raises or answers NaN, after it has drawn random numbers and counted in its state."""

    def __init__(self, kind):
        self.kind, self.seen = kind, []

    def init(self, condition):
        if self.kind == "init":
            raise ZeroDivisionError("in the middle")
        return 0

    def vjp(self, condition, cotangent, state):
        self.seen.append(state)
        torch.rand(3), np.random.rand(), random.random()
        grads = condition.mixed_vjp(condition.hvp(cotangent))
        if self.kind == "raises":
            raise ZeroDivisionError("in the middle")
        factor = 1.0 if self.kind == "well" else torch.nan
        return mlo.Result(tuple(None if g is None else g * factor for g in grads), state + 1)


@LOOKAHEAD
@TICKS
@pytest.mark.parametrize("kind", ["init", "raises", "NaN"])
def test_nothing_moves_when_a_method_fails(kind, lookahead, ticks):
    method = Broken("well")
    engine = advanced(program(Trip(), method, lookahead=lookahead), ticks)
    before, objects, method.kind = state(engine), structure(engine), kind
    fresh = ticks == 0
    for _ in range(2):
        if kind == "raises" or (kind == "init" and fresh):
            with pytest.raises(ZeroDivisionError, match="middle"):
                engine.hypergradient("upper")
        else:
            method.seen.clear()
            assert engine.hypergradient("upper")["weight"].isnan().any()
            assert method.seen == [ticks, ticks], "what a method remembers is a state as well"
        assert (state(engine), structure(engine)) == (before, objects)


class Once(torch.autograd.Function):
    """A square whose backward may not be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        return 2 * ctx.saved_tensors[0] * cotangent


def attend(x):
    x = x.expand(1, 1, 3, 2)
    return F.scaled_dot_product_attention(x, x, x)


EXACT = ("OneStep", "Neumann", "ConjugateGradient", "Dense")


@pytest.mark.parametrize("method", [METHODS[name] for name in EXACT], ids=EXACT)
@pytest.mark.parametrize("operation", [Once.apply, attend], ids=["once differentiable", "fused"])
def test_an_operation_without_a_second_derivative_is_named_and_moves_nothing(method, operation):
    lower = mlo.Problem(
        "lower",
        params={"w": torch.randn(2)},
        loss=lambda lower, upper: (operation(lower["w"]) * upper["c"]).sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
        hypergradient=method,
    )
    upper = mlo.Problem(
        "upper",
        params={"c": torch.tensor(0.7)},
        loss=lambda lower, upper: (lower["w"] - upper["c"]).square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    engine = mlo.Engine([lower, upper])
    before = state(engine)
    with pytest.raises(DoubleBackwardError, match=r"'lower'.*FiniteDifference"):
        engine.hypergradient("upper")
    assert state(engine) == before


FAILING = pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
SOME = pytest.mark.parametrize("name", ["OneStep", "FiniteDifference", "Neumann"])


@FAILING
@SOME
def test_a_step_whose_upper_problem_fails_leaves_the_lower_moves_that_were_made(name, kind):
    twin = advanced(program(Trip(), METHODS[name]), 2)
    twin.step()
    trip = Trip()
    engine = advanced(program(trip, METHODS[name]), 2)
    before, objects = state(engine), structure(engine)
    trip.arm(3, raises(kind))
    with pytest.raises(kind, match="middle"):
        engine.step()
    after, whole = state(engine), state(twin)
    for lower in ("learner", "relearner"):
        assert after[lower] == whole[lower] != before[lower]
    for kept in ("parameters", "optimizer", "scheduler", "grad", "training"):
        assert after["upper"][kept] == before["upper"][kept]
    assert (engine.tick, structure(engine)) == (2, objects)
    assert engine.step().tick == 2


@FAILING
@SOME
def test_a_look_ahead_step_whose_upper_problem_fails_moves_nobody(name, kind):
    trip = Trip()
    engine = advanced(program(trip, METHODS[name], lookahead=True), 2)
    objects, before = structure(engine), state(engine)
    trip.arm(0)
    engine.hypergradient("upper")
    for at in range(1, trip.calls + 1):
        trip.arm(at, raises(kind))
        with pytest.raises(kind, match="middle"):
            engine.step()
        after = state(engine)
        assert all(after[p] == before[p] for p in engine.problems), at
        assert (engine.tick, structure(engine)) == (2, objects)
    trip.arm(0)
    assert [m.problem for m in engine.step().moves] == ["upper", "learner", "relearner"]


class Writing(nn.Module):
    """Embeddings that are shortened in place, in forward."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(4, 2, max_norm=0.5), nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.table(torch.arange(4)))


class Recurrent(nn.Module):
    """A recurrent net keeps a second list of its parameters, which a functional call replaces."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 2)

    def forward(self, x):
        return self.cell(x)[0].sum(1)


class Switching(nn.Module):
    """Looks at itself in evaluation mode on the way."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def forward(self, x):
        self.norm.eval()
        return self.head(self.norm(x))


@pytest.mark.parametrize("make", [Writing, Recurrent, Switching])
@LOOKAHEAD
def test_nothing_moves_in_modules_that_change_themselves(make, lookahead):
    module, x = make(), torch.randn(5, 3)
    kept = {k: p.detach().clone() for k, p in module.named_parameters()}
    modes = [part.training for part in module.modules()]
    upper = mlo.Problem(
        "upper",
        params={"c": torch.tensor(0.7)},
        loss=lambda net: (net(x) - 1.0).square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    lower = mlo.Problem(
        "net",
        module=module,
        loss=lambda net, upper: (net(x) * upper["c"].exp()).square().sum(),
        optimizer=torch.optim.SGD(module.parameters(), 0.1),
    )
    # A typed refusal is as good as an answer.
    with contextlib.suppress(mlo.MloError):
        mlo.Engine([lower, upper], lookahead=lookahead).hypergradient("upper")
    assert still(dict(module.named_parameters())) == still(kept)
    assert [part.training for part in module.modules()] == modes
    twin = make()
    twin.load_state_dict(copy.deepcopy(module).state_dict())
    assert still(module.eval()(x)) == still(twin.eval()(x))
