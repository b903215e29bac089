"""Problems that begin anew: networks, several tasks, implicit MAML, chains, and real moves."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import mlo
from mlo.errors import MethodError

from .oracles import central, gradient, root

LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
ETA = 0.1
CLOSE = {"rtol": 1e-11, "atol": 1e-11}  # the rounding of a few ticks


def sgd(params):
    return torch.optim.SGD(params, ETA)


def params_of(problem):
    return {k: p.detach().clone() for k, p in problem.module.named_parameters()}


def network(tracked):
    norm = nn.BatchNorm1d(4) if tracked else nn.LayerNorm(4)  # parameters of the same names
    return nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 2))


def examples(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(8, 3, generator=draw), torch.randint(0, 2, (8,), generator=draw))
        for _ in range(n)
    ]


def train_loss(net, train):
    return F.cross_entropy(net(train[0]), train[1])


def valid_loss(net, valid):
    return F.cross_entropy(net(valid[0]), valid[1])


def copied(meta):
    return meta


def listed(meta):
    return dict(meta.named_parameters())


@pytest.mark.parametrize("tracked", [False, True], ids=["meta without buffers", "with buffers"])
@pytest.mark.parametrize("start", [copied, listed], ids=["a module", "its parameters"])
@pytest.mark.parametrize("accumulate", [1, 3])
@LOOKAHEAD
def test_maml_of_a_network_with_dropout_and_running_statistics(
    tracked, start, accumulate, lookahead
):
    torch.manual_seed(5)
    net, meta = network(True), network(tracked)
    hand = copy.deepcopy(net)
    at = {k: p.detach().clone() for k, p in meta.named_parameters()}
    data = {"train": examples(6, 1), "valid": examples(6, 2)}
    problems = [
        mlo.Problem(
            "net",
            module=net,
            loss=train_loss,
            optimizer=sgd(net.parameters()),
            start=start,
            accumulate=accumulate,
        ),
        mlo.Problem("meta", module=meta, loss=valid_loss, optimizer=sgd(meta.parameters())),
    ]
    engine = mlo.Engine(problems, data, lookahead=lookahead)
    before = copy.deepcopy(dict(meta.named_buffers()))

    def adapted(own, buffers, tick):
        begun = {k: 1 * t for k, t in own.items()}
        losses = []
        for j in range(accumulate):
            x, y = data["train"][(tick * accumulate + j) % 6]
            losses.append(F.cross_entropy(functional_call(hand, (begun, buffers), (x,)), y))
        loss = sum(losses) / accumulate
        slope = torch.autograd.grad(loss, [*begun.values()], create_graph=True)
        return {k: t - ETA * g for (k, t), g in zip(begun.items(), slope, strict=True)}

    buffers = {k: b.clone() for k, b in hand.named_buffers()}
    path = []
    torch.manual_seed(6)
    for tick in range(3):
        leaf = {k: t.clone().requires_grad_() for k, t in at.items()}
        tried = {k: b.clone() for k, b in buffers.items()}
        moved = adapted(leaf, tried, tick)
        seen = copy.deepcopy(buffers if lookahead else tried)
        x, y = data["valid"][tick]
        loss = F.cross_entropy(functional_call(hand, (moved, seen), (x,)), y)
        slope = torch.autograd.grad(loss, [*leaf.values()])
        at = {k: (t - ETA * g).detach() for (k, t), g in zip(leaf.items(), slope, strict=True)}
        if lookahead:
            tried = {k: b.clone() for k, b in buffers.items()}
            leaf = {k: t.clone().requires_grad_() for k, t in at.items()}
            moved = adapted(leaf, tried, tick)
        buffers = tried
        path.append((at, {k: t.detach() for k, t in moved.items()}, buffers))
    torch.manual_seed(6)
    for want in path:
        engine.step()
        torch.testing.assert_close(params_of(problems[1]), want[0], **CLOSE)
        torch.testing.assert_close(params_of(problems[0]), want[1], **CLOSE)
        torch.testing.assert_close(dict(net.named_buffers()), want[2], **CLOSE)
    torch.testing.assert_close(dict(meta.named_buffers()), before, rtol=0, atol=0)


def bowl(seed):
    """A strongly convex loss of three numbers that is no quadratic."""
    draw = torch.Generator().manual_seed(seed)
    half, offset = torch.randn(3, 3, generator=draw), torch.randn(3, generator=draw)
    curvature = torch.eye(3) + 0.3 * half @ half.T
    return lambda w: 0.5 * w @ curvature @ w - w @ offset + 0.1 * (w**4).sum()


def problem(name, loss, value=None, **settings):
    value = torch.tensor([0.5, -0.3, 0.8]) if value is None else value
    return mlo.Problem(name, **{"params": {"w": value}, "loss": loss, "optimizer": sgd, **settings})


def from_meta(meta):
    return {"w": meta["w"]}


@LOOKAHEAD
def test_the_tasks_of_one_level_add_up(lookahead):
    draw = torch.Generator().manual_seed(0)
    meta = torch.randn(3, generator=draw)
    tasks = [bowl(seed) for seed in (1, 2, 3)]
    names = ["one", "two", "three"]
    lower = [
        problem(n, eval(f"lambda {n}: f({n}['w'])", {"f": f}), start=from_meta)
        for n, f in zip(names, tasks, strict=True)
    ]
    judges = [bowl(seed) for seed in (4, 5, 6)]

    def judge(one, two, three):
        return sum(f(net["w"]) for f, net in zip(judges, (one, two, three), strict=True))

    top = problem("meta", judge, value=meta)
    engine = mlo.Engine([lower, top], lookahead=lookahead)
    want = torch.zeros(3)
    for task, judge_of in zip(tasks, judges, strict=True):
        hessian = torch.autograd.functional.hessian(task, meta)
        w = meta - ETA * torch.autograd.functional.jacobian(task, meta)
        v = torch.autograd.functional.jacobian(judge_of, w)
        want += v - ETA * hessian @ v
    torch.testing.assert_close(engine.hypergradient("meta")["w"], want, rtol=1e-13, atol=1e-13)
    engine.step()
    torch.testing.assert_close(params_of(top)["w"], meta - ETA * want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", [mlo.ConjugateGradient(tolerance=1e-13), mlo.Dense()])
@LOOKAHEAD
def test_implicit_maml_is_the_derivative_of_the_solution(method, lookahead):
    task, judge, strength = bowl(1), bowl(2), 0.7

    def near(w, meta):
        return task(w) + strength / 2 * (w - meta).square().sum()

    net = problem(
        "net",
        lambda net, meta: near(net["w"], meta["w"]),
        start=from_meta,
        repeat=200,
        hypergradient=method,
    )
    top = problem("meta", lambda net: judge(net["w"]), value=torch.tensor([1.0, 0.2, -0.4]))
    engine = mlo.Engine([net, top], lookahead=lookahead)
    meta = params_of(top)["w"]

    def solution(x):
        return root(lambda w: gradient(near(w, x), w), x)

    w = solution(meta)
    hessian = torch.autograd.functional.hessian(task, w)
    v = torch.autograd.functional.jacobian(judge, w)
    want = strength * torch.linalg.solve(hessian + strength * torch.eye(3), v)
    torch.testing.assert_close(want, central(lambda x: judge(solution(x)), meta), rtol=1e-9, atol=0)
    engine.step()
    found = (meta - params_of(top)["w"]) / ETA
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-10)  # what 200 updates leave


def test_fine_tuning_from_a_learner_answers_through_both():
    """meta -> learner -> where net begins: the derivative of both steps by autograd."""
    lesson, task, judge = bowl(1), bowl(2), bowl(3)
    learner = problem("learner", lambda learner, meta: lesson(learner["w"] * meta["w"]))
    net = problem(
        "net",
        lambda net, meta: task(net["w"] + meta["w"] ** 2),
        start=lambda learner, meta: {"w": learner["w"] * meta["w"].cos()},
    )
    top = problem("meta", lambda net: judge(net["w"]), value=torch.tensor([1.0, 0.2, -0.4]))
    engine = mlo.Engine([learner, net, top])
    low, meta = params_of(learner)["w"], params_of(top)["w"]
    for _ in range(3):
        own, c = low.clone().requires_grad_(), meta.clone().requires_grad_()
        taught = own - ETA * gradient(lesson(own * c), own)
        begun = taught * c.cos()
        s = begun.view_as(begun)
        tuned = s - ETA * gradient(task(s + c**2), s)
        answer = gradient(judge(tuned), c, graph=False)
        low, meta = taught.detach(), meta - ETA * answer
        engine.step()
        torch.testing.assert_close(params_of(learner)["w"], low, **CLOSE)
        torch.testing.assert_close(params_of(net)["w"], tuned.detach(), **CLOSE)
        torch.testing.assert_close(params_of(top)["w"], meta, **CLOSE)


def test_a_start_that_reads_what_answers_to_its_problem_is_refused():
    """The answer would be that to where mid stood before, which no recorded move contains."""
    low = problem(
        "low",
        lambda low, mid, top: (low["w"] - mid["w"] - top["w"]).square().sum(),
        hypergradient=mlo.Dense(),
    )
    mid = problem(
        "mid",
        lambda mid, low: (mid["w"] - 1).square().sum() + 0 * low["w"].sum(),
        start=lambda low: {"w": 3 * low["w"]},
    )
    top = problem("top", lambda mid: mid["w"].sum())
    with pytest.raises(MethodError, match="'mid': its start reads 'low', which itself answers"):
        mlo.Engine([low, mid, top])


@LOOKAHEAD
def test_learned_weights_begin_from_zero_before_those_below_try_them(lookahead):
    """The weights of Ren et al. (ICML 2018): from zero, one step against one step of the net."""
    x, y = examples(1, 1)[0]
    clean = examples(1, 2)[0]

    def errors(w, batch):
        return (batch[0] @ w - batch[1]).square()

    def step(w, a):
        own = w.clone().requires_grad_()
        return own - ETA * gradient((a * errors(own, (x, y))).sum(), own)

    net = problem("net", lambda net, weights: (weights["w"] * errors(net["w"], (x, y))).sum())
    weights = problem(
        "weights",
        lambda net: errors(net["w"], clean).mean(),
        value=torch.full((8,), 0.3),
        start=lambda: {"w": torch.zeros(8)},
        project=lambda p: {"w": p["w"].clamp_min(0)},
        optimizer=lambda params: torch.optim.SGD(params, 2.0),
    )
    engine = mlo.Engine([net, weights], lookahead=lookahead)
    low, a = params_of(net)["w"], params_of(weights)["w"]
    for _ in range(3):
        # After a real move that move is differentiated, made with the weights as they were then.
        a = (torch.zeros(8) if lookahead else a).requires_grad_()
        tried = step(low, a)
        slope = gradient(errors(tried, clean).mean(), a, graph=False)
        a = (-2.0 * slope).clamp_min(0).detach()
        low = step(low, a).detach() if lookahead else tried.detach()
        engine.step()
        torch.testing.assert_close(params_of(weights)["w"], a, **CLOSE)
        torch.testing.assert_close(params_of(net)["w"], low, **CLOSE)
