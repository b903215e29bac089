"""Optimizers that evaluate the loss themselves, through a closure."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo

EXACT = {"rtol": 0, "atol": 0}


class Net(nn.Module):
    def __init__(self, *, norm=False, dropout=0.0):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.two(self.drop(self.norm(self.one(x)).tanh()))


def batches(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(6, 3, generator=draw, dtype=torch.float64),
            torch.randint(0, 2, (6,), generator=draw),
        )
        for _ in range(n)
    ]


DATA = batches(4, 1)


def fit(net, train):
    x, t = train
    size = sum(p.square().sum() for p in net.parameters())
    return F.cross_entropy(net(x), t) + 0.01 * size


class TwoPoints(torch.optim.Optimizer):
    """Descends by the gradient found some way up (Foret et al., ICLR 2021)."""

    def __init__(self, params, lr=0.1, radius=0.05):
        super().__init__(params, {"lr": lr, "radius": radius})

    @torch.no_grad()
    def step(self, closure):
        closure = torch.enable_grad()(closure)
        loss = closure()
        group = self.param_groups[0]
        size = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        shifts = [group["radius"] / size * p.grad for p in group["params"]]
        torch._foreach_add_(group["params"], shifts)
        closure()
        torch._foreach_sub_(group["params"], shifts)
        for p in group["params"]:
            p.sub_(p.grad, alpha=group["lr"])
        return loss


class Ahead(torch.optim.Optimizer):
    """Nesterov's method as he wrote it: moves on by its speed, and evaluates there."""

    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure):
        group = self.param_groups[0]
        for p in group["params"]:
            speed = self.state[p].setdefault("speed", torch.full_like(p, 0.1))
            p.add_(speed, alpha=group["momentum"])
        with torch.enable_grad():
            loss = closure()
        for p in group["params"]:
            p.sub_(p.grad, alpha=group["lr"])
            speed = self.state[p]["speed"]
            speed.mul_(group["momentum"]).sub_(p.grad, alpha=group["lr"])
        return loss


class Clean(torch.optim.Optimizer):
    """Clears gradients before each evaluation, in case the closure does not."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        for _ in range(2):
            self.zero_grad()
            loss = float(torch.enable_grad()(closure)())
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad, alpha=self.param_groups[0]["lr"] * loss)
        return loss


OPTIMIZERS = {
    "LBFGS": lambda params: torch.optim.LBFGS(params, 0.5, max_iter=5, history_size=3),
    "strong Wolfe": lambda params: torch.optim.LBFGS(params, line_search_fn="strong_wolfe"),
    "one iteration": lambda params: torch.optim.LBFGS(params, 0.5, max_iter=1),
    "two points": TwoPoints,
    "moves, then evaluates": Ahead,
    "clears gradients first": Clean,
}
OPTIMIZER = pytest.mark.parametrize("name", OPTIMIZERS)


def by_hand(net, optimizer, ticks, *, accumulate=1, clip=None):
    """One batch, one mask and one update of the running statistics a move; else plain torch."""
    losses = []
    for tick in range(ticks):
        parts = [DATA[(tick * accumulate + j) % 4] for j in range(accumulate)]
        random, buffers = torch.get_rng_state(), copy.deepcopy(dict(net.named_buffers()))
        kept = []

        def closure(parts=parts, random=random, buffers=buffers, kept=kept):
            torch.set_rng_state(random)
            for k, b in net.named_buffers():
                b.copy_(buffers[k])
            optimizer.zero_grad()
            loss = sum(fit(net, part) / accumulate for part in parts)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            kept.append((loss.detach(), torch.get_rng_state(), copy.deepcopy(net.state_dict())))
            return loss

        optimizer.step(closure)
        loss, random, state = kept[0]
        losses.append(loss)
        torch.set_rng_state(random)
        for k, b in net.named_buffers():
            b.copy_(state[k])
    return losses


def trained(net):
    return dict(net.named_parameters())


def problem_of(net, name, **settings):
    settings = {"loss": fit, "optimizer": OPTIMIZERS[name](net.parameters()), **settings}
    return mlo.Problem("net", module=net, **settings)


@OPTIMIZER
@pytest.mark.parametrize("clip", [None, 0.2], ids=["", "clipped"])
@pytest.mark.parametrize("noisy", [False, True], ids=["", "dropout and running statistics"])
def test_one_problem_runs_bit_for_bit_as_in_plain_pytorch(name, clip, noisy):
    net = Net(norm=noisy, dropout=0.4 if noisy else 0.0)
    hand = copy.deepcopy(net)
    optimizer = OPTIMIZERS[name](hand.parameters())
    torch.manual_seed(2)
    losses = by_hand(hand, optimizer, 5, clip=clip)
    random = torch.get_rng_state()
    problem = problem_of(net, name, clip_norm=clip)
    engine = mlo.Engine([problem], {"train": DATA})
    torch.manual_seed(2)
    records = [engine.step() for _ in range(5)]
    assert torch.equal(torch.get_rng_state(), random)
    # One that moves on first evaluates nowhere where the engine did.
    kept = nn.Module.state_dict if name != "moves, then evaluates" else trained
    torch.testing.assert_close(kept(net), kept(hand), **EXACT)
    mine, theirs = problem.optimizer.state_dict(), optimizer.state_dict()
    torch.testing.assert_close(mine["state"], theirs["state"], **EXACT)
    if name != "moves, then evaluates":
        assert [float(r.moves[0].loss) for r in records] == [float(loss) for loss in losses]
    assert all(p.grad is None for p in net.parameters())


@OPTIMIZER
def test_micro_batches_are_one_function_to_a_line_search(name):
    net = Net(norm=True, dropout=0.4)
    hand = copy.deepcopy(net)
    torch.manual_seed(2)
    by_hand(hand, OPTIMIZERS[name](hand.parameters()), 2, accumulate=3)
    engine = mlo.Engine([problem_of(net, name, accumulate=3)], {"train": DATA})
    torch.manual_seed(2)
    for _ in range(2):
        engine.step()
    # Sums in another order, amplified by iterations that go on from them.
    torch.testing.assert_close(trained(net), trained(hand), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["LBFGS", "strong Wolfe", "two points"])
def test_a_loss_that_fails_later_leaves_everything_where_it_was(name):
    left = [100]

    def failing(net, train):
        left[0] -= 1
        if left[0] == 0:
            raise ValueError("no more")
        return fit(net, train)

    net = Net(norm=True, dropout=0.4)
    lower = problem_of(net, name, loss=failing)
    engine = mlo.Engine([lower], {"train": DATA})
    engine.step()
    before, left[0] = copy.deepcopy(net.state_dict()), 2
    with pytest.raises(ValueError, match="no more"):
        engine.step()
    torch.testing.assert_close(net.state_dict(), before, **EXACT)
    assert all(p.grad is None for p in net.parameters())
    assert engine.tick == 1
    engine.step()
    assert not torch.equal(net.one.weight, before["one.weight"])


def test_a_projection_comes_after_the_step():
    w = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = torch.optim.LBFGS([w], max_iter=3)
    problem = mlo.Problem(
        "net",
        params={"w": w},
        loss=lambda net: (net["w"] - 3).pow(4).sum(),
        optimizer=lambda params: torch.optim.LBFGS(params, max_iter=3),
        project=lambda params: {"w": params["w"].clamp(max=1.5)},
    )
    engine = mlo.Engine([problem])

    def closure():
        optimizer.zero_grad()
        loss = (w - 3).pow(4).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        w.data.clamp_(max=1.5)
        engine.step()
        torch.testing.assert_close(problem.module["w"], w, **EXACT)
