"""Runs of several levels against loops in plain PyTorch: modules, optimizers and autograd.

The loops know nothing of the engine. A response is plain autograd through a differentiable copy of
the optimizer's formula, or the finite-difference formula written out.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import mlo

# Formulas that agree differ by rounding: 1e-16 a step, amplified where Adam divides by a small
# root and where a difference is divided by its radius.
TOLERANCE = 1e-12
TICKS, N, RADIUS = 24, 16, 0.01
METHODS = {
    "Direct": mlo.Direct(),
    "OneStep": mlo.OneStep(),
    "FiniteDifference": mlo.FiniteDifference(radius=RADIUS),
    "forward difference": mlo.FiniteDifference(radius=RADIUS, scheme="forward"),
}
METHOD = pytest.mark.parametrize("name", METHODS)
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
RETAIN = pytest.mark.parametrize("retain", [True, False], ids=["graph kept", "recomputed"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.two(self.norm(self.one(x)).tanh())


class Upper(nn.Module):
    """Weights by example, a strength of decay, and an encoder that only one program uses."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(N))
        self.decay = nn.Parameter(torch.tensor(-2.0))
        self.encoder = nn.Linear(3, 2)


def batches(n, size, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, generator=draw, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=draw),
            torch.randint(0, N, (size,), generator=draw),
        )
        for _ in range(n)
    ]


DATA = {"train": batches(5, 6, 1), "extra": batches(4, 3, 2), "valid": batches(3, 7, 3)}


def fit(net, upper, train, extra):
    x, t, index = train
    errors = F.cross_entropy(net(x), t, reduction="none")
    smooth = net(extra[0]).logsumexp(1).mean()
    size = sum(p.square().sum() for p in net.parameters())
    return (upper.weight[index].sigmoid() * errors).mean() + 0.1 * smooth + upper.decay.exp() * size


def judge(net, upper, valid, extra):
    direct = 0.01 * upper.weight.square().sum() + 0.01 * upper.decay.square()
    return F.cross_entropy(net(valid[0]), valid[1]) + direct + 0.1 * net(extra[0]).square().mean()


def learn(learner, upper, train):
    x, t, index = train
    return (upper.weight[index].exp() * F.cross_entropy(learner(x), t, reduction="none")).mean()


def relearn(relearner, learner, upper, train, valid):
    (x, t, _), (other, label, _) = train, valid
    mistakes = F.cross_entropy(learner(other), label, reduction="none")
    alike = (upper.encoder(x) @ upper.encoder(other).T).softmax(1) * (t[:, None] == label[None])
    weights = (alike @ mistakes - upper.decay).sigmoid()
    return (weights * F.cross_entropy(relearner(x), t, reduction="none")).mean()


def validate(relearner, upper, valid):
    direct = sum(p.square().sum() for p in upper.parameters())
    return F.cross_entropy(relearner(valid[0]), valid[1]) + 0.01 * direct


def sgd(module):
    """Two groups with rates and decays of their own."""
    head = list(module.two.parameters())
    rest = [p for p in module.parameters() if all(p is not q for q in head)]
    groups = [{"params": rest}, {"params": head, "lr": 0.05, "weight_decay": 0.01}]
    return torch.optim.SGD(groups, 0.2, momentum=0.9, dampening=0.1)


def adam(module):
    return torch.optim.Adam(module.parameters(), 0.05)


def scheduled(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 8, 0.7)


class At:
    """A module evaluated at other tensors, for losses that call it or read its parameters."""

    def __init__(self, module, tensors):
        self.module, self.tensors = module, tensors

    def __call__(self, *args):
        return functional_call(self.module, self.tensors, args)

    def __getattr__(self, name):
        if name in self.tensors:
            return self.tensors[name]
        inner = {k: t for k, t in self.tensors.items() if k.startswith(name + ".")}
        return At(
            getattr(self.module, name), {k.removeprefix(name + "."): t for k, t in inner.items()}
        )

    def parameters(self):
        return iter(self.tensors.values())


def values(module):
    return {k: p.detach().clone() for k, p in module.named_parameters()}


def leaves(tensors):
    return {k: t.detach().clone().requires_grad_() for k, t in tensors.items()}


class Recorded:
    """One move of a lower problem, with its optimizer as it was, differentiated by hand."""

    def __init__(self, optimizer, module, loss, at, **context):
        self.loss, self.at, self.context = loss, at, context
        own = {id(p): dict(g) for g in optimizer.param_groups for p in g["params"]}
        self.rule = {
            k: (
                own[id(p)],
                optimizer.state[p]["momentum_buffer"].clone() if p in optimizer.state else None,
            )
            for k, p in module.named_parameters()
        }

    def step(self, own, gradient):
        """SGD as PyTorch makes it: decay, momentum, dampening after the first step."""
        new = {}
        for (k, (group, old)), g in zip(self.rule.items(), gradient, strict=True):
            b = g + group["weight_decay"] * own[k]
            if old is not None:
                b = group["momentum"] * old + (1 - group["dampening"]) * b
            new[k] = own[k] - group["lr"] * b
        return new

    def moved(self, own, context):
        loss = self.loss(own, **context)
        return self.step(own, torch.autograd.grad(loss, [*own.values()], create_graph=True))

    def respond(self, name, v):
        """The cotangents of the context, given v, that of where the move led."""
        context = {who: leaves(c) for who, c in self.context.items()}
        flat = [t for c in context.values() for t in c.values()]
        if name == "Direct":
            found = [None] * len(flat)
        elif name == "OneStep":
            new = self.moved(leaves(self.at), context)
            found = torch.autograd.grad([*new.values()], flat, v, allow_unused=True)
        else:
            forward = name == "forward difference"
            # The derivative of the step with respect to its gradient: the rate, once dampened.
            still = {k: torch.zeros_like(t) for k, t in self.at.items()}
            kept = self.step(still, [torch.zeros_like(x) for x in v])
            u = {k: kept[k] - t for k, t in self.step(still, v).items()}
            e = RADIUS / torch.cat([x.reshape(-1) for x in u.values()]).norm()

            def slope(sign):
                own = {k: t + sign * e * u[k] for k, t in self.at.items()}
                return torch.autograd.grad(self.loss(own, **context), flat, allow_unused=True)

            sides = zip(slope(1), slope(0 if forward else -1), strict=True)
            found = [None if a is None else (b - a) / (e if forward else 2 * e) for a, b in sides]
        rest = iter(found)
        return {who: {k: next(rest) for k in c} for who, c in context.items()}


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def copies(optimizer, module):
    """A module and its optimizer for moves on trial."""
    trial = copy.deepcopy(module)
    other = sgd(trial)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other, trial


def step_upper(optimizer, upper, *parts):
    """A step on the sum; without a gradient where there is none, as after `backward`."""
    for k, p in upper.named_parameters():
        present = [part[k] for part in parts if part[k] is not None]
        p.grad = sum(present) if present else None
    optimizer.step()


def slopes(loss, *groups):
    flat = [t for group in groups for t in group.values()]
    rest = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    return [{k: next(rest) for k in group} for group in groups]


def draw(stream, i):
    return DATA[stream][i % len(DATA[stream])]


def reweighting_by_hand(name, lookahead, net, upper):
    """Two updates a tick for the net; from the sixth tick on, one every second for the upper."""
    lower, outer = sgd(net), adam(upper)
    schedule = scheduled(lower)
    losses, moves = [], 0

    def record(optimizer, module, batch):
        def loss(own, upper):
            return fit(At(net, own), At(bare, upper), *batch)

        return Recorded(optimizer, module, loss, values(module), upper=values(upper))

    def answer(move, tried, extra):
        params, own = leaves(tried), leaves(values(upper))
        loss = judge(At(net, params), At(bare, own), draw("valid", moves), extra)
        losses.append(float(loss.detach()))
        v, direct = slopes(loss, params, own)
        step_upper(outer, upper, direct, move.respond(name, [*v.values()])["upper"])

    bare = copy.deepcopy(upper)
    for tick in range(TICKS):
        pair = [(draw("train", i), draw("extra", i)) for i in (2 * tick, 2 * tick + 1)]
        due = tick >= 5 and (tick - 5) % 2 == 1
        if due and lookahead:
            optimizer, trial = copies(lower, net)
            step(optimizer, fit(trial, upper, *pair[0]))
            move = record(optimizer, trial, pair[1])
            step(optimizer, fit(trial, upper, *pair[1]))
            answer(move, values(trial), pair[1][1])
        for batch in pair:
            move = record(lower, net, batch)
            losses.append(step(lower, fit(net, upper, *batch)))
        schedule.step()
        if due and not lookahead:
            answer(move, values(net), pair[1][1])
        moves += due
    return losses


def lfm_by_hand(name, lookahead, learner, relearner, upper):
    one, two, outer = sgd(learner), sgd(relearner), adam(upper)
    schedule = scheduled(one)
    bare, net, losses = copy.deepcopy(upper), copy.deepcopy(learner), []

    def record_learner(train):
        def loss(own, upper):
            return learn(At(net, own), At(bare, upper), train)

        return Recorded(one, learner, loss, values(learner), upper=values(upper))

    def record_relearner(taught, train, valid):
        def loss(own, learner, upper):
            return relearn(At(net, own), At(net, learner), At(bare, upper), train, valid)

        return Recorded(
            two, relearner, loss, values(relearner), learner=taught, upper=values(upper)
        )

    def answer(first, second, tried, valid):
        params, own = leaves(tried), leaves(values(upper))
        loss = validate(At(net, params), At(bare, own), valid)
        losses.append(float(loss.detach()))
        v, direct = slopes(loss, params, own)
        found = second.respond(name, [*v.values()])
        none = dict.fromkeys(values(upper))
        # Without a response the learner is not asked.
        asked = any(x is not None for x in found["learner"].values())
        deeper = first.respond(name, [*found["learner"].values()])["upper"] if asked else none
        step_upper(outer, upper, direct, found["upper"], deeper)

    for tick in range(TICKS):
        train, valid = draw("train", tick), draw("valid", tick)
        if lookahead:
            (taught_by, taught), (retaught_by, retaught) = (
                copies(one, learner),
                copies(two, relearner),
            )
            first = record_learner(train)
            step(taught_by, learn(taught, upper, train))
            second = record_relearner(values(taught), train, valid)
            step(retaught_by, relearn(retaught, taught, upper, train, valid))
            answer(first, second, values(retaught), valid)
        first = record_learner(train)
        losses.append(step(one, learn(learner, upper, train)))
        schedule.step()
        second = record_relearner(values(learner), train, valid)
        losses.append(step(two, relearn(relearner, learner, upper, train, valid)))
        if not lookahead:
            answer(first, second, values(relearner), valid)
    return losses


def reweighting(method):
    net, upper = Net(), Upper()
    optimizer = sgd(net)
    return [net, upper], [
        mlo.Problem(
            "net",
            module=net,
            loss=fit,
            optimizer=optimizer,
            scheduler=scheduled(optimizer),
            hypergradient=method,
            repeat=2,
        ),
        mlo.Problem("upper", module=upper, loss=judge, optimizer=adam(upper), every=2, warmup=5),
    ]


def lfm(method):
    learner, relearner, upper = Net(), Net(), Upper()
    first = sgd(learner)
    return [learner, relearner, upper], [
        mlo.Problem(
            "learner",
            module=learner,
            loss=learn,
            optimizer=first,
            scheduler=scheduled(first),
            hypergradient=method,
        ),
        mlo.Problem(
            "relearner",
            module=relearner,
            loss=relearn,
            optimizer=sgd(relearner),
            hypergradient=method,
        ),
        mlo.Problem("upper", module=upper, loss=validate, optimizer=adam(upper)),
    ]


PROGRAMS = {"reweighting": (reweighting, reweighting_by_hand), "lfm": (lfm, lfm_by_hand)}


@pytest.mark.parametrize("program", PROGRAMS)
@METHOD
@LOOKAHEAD
@RETAIN
def test_a_run_equals_the_loop_in_plain_pytorch(program, name, lookahead, retain):
    torch.manual_seed(4)
    declare, loop = PROGRAMS[program]
    modules, problems = declare(METHODS[name])
    by_hand = copy.deepcopy(modules)
    streams = {k: DATA[k] for k in ("train", "valid", "extra") if program != "lfm" or k != "extra"}
    engine = mlo.Engine(problems, streams, lookahead=lookahead, retain=retain)
    records = [engine.step() for _ in range(TICKS)]
    losses = loop(name, lookahead, *by_hand)
    found = [float(move.loss) for record in records for move in record.moves]
    assert len(found) == len(losses)
    tolerance = 0.0 if name == "Direct" else TOLERANCE
    torch.testing.assert_close(found, losses, rtol=tolerance, atol=tolerance)
    for module, want in zip(modules, by_hand, strict=True):
        for (key, p), q in zip(module.named_parameters(), want.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=key)
    kept = problems[0].optimizer.state_dict()["param_groups"][0]["lr"]
    assert kept == pytest.approx(0.2 * 0.7 ** (TICKS // 8), rel=1e-12)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_methods_lead_to_different_runs(program):
    """Otherwise the comparisons above could not tell them apart."""
    ends = []
    for method in METHODS.values():
        torch.manual_seed(4)
        modules, problems = PROGRAMS[program][0](method)
        streams = {k: DATA[k] for k in DATA if program != "lfm" or k != "extra"}
        engine = mlo.Engine(problems, streams)
        for _ in range(TICKS):
            engine.step()
        ends.append(torch.cat([p.detach().reshape(-1) for p in modules[-1].parameters()]))
    for i, end in enumerate(ends):
        assert all((end - other).norm() > 1e3 * TOLERANCE for other in ends[:i])
