"""Optimizers that need a closure below and above others: what works, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import mlo
from mlo.errors import MethodError

from .oracles import gradient, jacobian
from .test_closures import DATA, Net, TwoPoints, problem_of


def pulled(net, top, train):
    x, t = train
    errors = F.cross_entropy(net(x), t, reduction="none")
    size = sum(p.square().sum() for p in net.parameters())
    return ((x @ top["w"]).exp() * errors).mean() + size


class At:
    """A network evaluated at other tensors."""

    def __init__(self, net, tensors):
        self.net, self.tensors = net, tensors

    def __call__(self, x):
        return functional_call(self.net, self.tensors, (x,))

    def parameters(self):
        return iter(self.tensors.values())


def judge(net, top, train):
    return F.cross_entropy(net(train[0]), train[1]) + 0.1 * top["w"].square().sum()


@pytest.mark.parametrize("name", ["LBFGS", "strong Wolfe"])
@pytest.mark.parametrize(
    "method",
    [mlo.Dense(), mlo.ConjugateGradient(40, 1e-13), mlo.Neumann(terms=400, alpha=0.3)],
    ids=lambda method: type(method).__name__,
)
def test_a_lower_problem_answers_under_the_mask_of_its_move(name, method):
    net = Net(dropout=0.4)
    lower = problem_of(net, name, loss=pulled, hypergradient=method)
    x = torch.tensor([0.3, -0.2, 0.4])
    top = mlo.Problem(
        "top", params={"w": x}, loss=judge, optimizer=lambda params: torch.optim.SGD(params, 0.0)
    )
    engine = mlo.Engine([lower, top], {"train": DATA})
    torch.manual_seed(2)
    for tick in range(2):
        random = torch.get_rng_state()
        engine.step()
        batch, after = DATA[tick], torch.get_rng_state()
        w = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).requires_grad_()
        c = x.clone().requires_grad_()

        def at(loss, state, w=w, c=c, batch=batch):
            named = dict(net.named_parameters())
            parts = w.split([p.numel() for p in named.values()])
            given = {k: q.view_as(p) for (k, p), q in zip(named.items(), parts, strict=True)}
            torch.set_rng_state(state)
            return loss(At(net, given), {"w": c}, batch)

        slope = gradient(at(pulled, random), w)
        outer = at(judge, after)
        adjoint = torch.linalg.solve(jacobian(slope, w).T, gradient(outer, w, graph=False))
        want = gradient(outer, c, graph=False) - jacobian(slope, c).T @ adjoint
        torch.set_rng_state(after)
        found = engine.hypergradient("top")["w"]
        torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-9)  # what 400 terms leave


def test_an_upper_problem_may_evaluate_once_a_move():
    draw = torch.Generator().manual_seed(1)
    pull, x = torch.randn(4, 3, generator=draw), torch.randn(3, generator=draw)
    w = torch.randn(4, generator=draw)
    low = mlo.Problem(
        "low",
        params={"w": w},
        loss=lambda low, top: (low["w"] - pull @ top["w"].sin()).square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.2),
        hypergradient=mlo.Dense(),
    )
    top = mlo.Problem(
        "top",
        params={"w": x},
        loss=lambda low: (low["w"] - 1).pow(4).sum(),
        optimizer=lambda params: torch.optim.LBFGS(params, 0.1, max_iter=1),
    )
    engine = mlo.Engine([low, top])
    hand = nn.Parameter(x.clone())
    optimizer = torch.optim.LBFGS([hand], 0.1, max_iter=1)
    for _ in range(4):
        w = w - 0.4 * (w - pull @ hand.detach().sin())

        def closure(w=w):
            hand.grad = hand.detach().cos() * (pull.T @ (4 * (w - 1) ** 3))
            return (w - 1).pow(4).sum()

        optimizer.step(closure)
        record = engine.step()
        assert [m.responses[0].solves for m in record.moves if m.responses] == [1]
        # The engine solves a system with twice the identity: rounding.
        torch.testing.assert_close(low.module["w"].detach(), w, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(top.module["w"], hand, rtol=1e-12, atol=1e-12)


@dataclasses.dataclass(frozen=True)
class MovesOnly(mlo.Hypergradient):
    needs = frozenset({"moves"})

    def vjp(self, condition, cotangent, state):
        mixed = condition.mixed_vjp(cotangent)
        return mlo.Result(tuple(None if m is None else -m for m in mixed), state)


REFUSED = {
    "OneStep": ({"hypergradient": mlo.OneStep()}, {}, "no recorded step for OneStep"),
    "FD": ({"hypergradient": mlo.FiniteDifference()}, {}, "no recorded step for FiniteDifference"),
    "moves": ({"hypergradient": MovesOnly()}, {}, "no recorded step for MovesOnly"),
    "no rate": ({"hypergradient": mlo.Neumann()}, {}, r"learning rate.*Neumann\(alpha=...\)"),
    "look-ahead": ({}, {"lookahead": True}, "trial moves do not offer; use lookahead=False"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["LBFGS", "two points"])
def test_a_lower_problem_whose_answer_needs_more_is_refused(case, name):
    lower, engine, message = REFUSED[case]
    lower = problem_of(Net(), name, loss=pulled, **{"hypergradient": mlo.Dense(), **lower})
    top = mlo.Problem(
        "top",
        params={"w": torch.zeros(3)},
        loss=judge,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    with pytest.raises(MethodError, match=f"(?s)problem 'net'.*({message})"):
        mlo.Engine([lower, top], {"train": DATA}, **engine)


SEVERAL = {
    "default": torch.optim.LBFGS,
    "a line search": lambda p: torch.optim.LBFGS(p, max_iter=1, line_search_fn="strong_wolfe"),
    "two points": TwoPoints,
}


@pytest.mark.parametrize("name", SEVERAL)
def test_an_upper_problem_that_evaluates_at_several_points_is_refused(name):
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    lower = mlo.Problem("net", module=net, loss=pulled, optimizer=sgd)
    start = {"w": torch.zeros(3)}
    top = mlo.Problem("top", params=start, loss=judge, optimizer=SEVERAL[name])
    with pytest.raises(MethodError, match=r"'top'.*several points.*'net' would have to answer"):
        mlo.Engine([lower, top], {"train": DATA})
