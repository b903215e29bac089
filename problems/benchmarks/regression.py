"""Logistic regression with a learned decay, by the engine and by hand: mostly overhead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.benchmarks.timing import Step


def engine() -> Step:
    """Logistic regression with a learned decay for each feature: mostly overhead."""
    train, valid, net, log = _program()

    def train_loss(net: nn.Linear, decay: nn.ParameterDict, train: tuple[Tensor, Tensor]) -> Tensor:
        penalty = (decay["log"].exp() * net.weight.square()).sum()
        return F.cross_entropy(net(train[0]), train[1]) + penalty

    def valid_loss(net: nn.Module, valid: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(valid[0]), valid[1])

    lower = mlo.Problem(
        "net", module=net, loss=train_loss, optimizer=torch.optim.SGD(net.parameters(), 0.1)
    )
    upper = mlo.Problem(
        "decay", params={"log": log}, loss=valid_loss, optimizer=lambda p: torch.optim.SGD(p, 0.1)
    )
    made = mlo.Engine([lower, upper], {"train": [train], "valid": [valid]})
    return lambda: made.step().moves[-1].loss


def loop() -> Step:
    """The same by hand: one step with a graph, differentiated once more."""
    train, valid, net, log = _program()
    weights, decay = list(net.parameters()), log.clone().requires_grad_()
    lower, upper = torch.optim.SGD(weights, 0.1), torch.optim.SGD([decay], 0.1)

    def step() -> Tensor:
        penalty = (decay.exp() * net.weight.square()).sum()
        loss = F.cross_entropy(net(train[0]), train[1]) + penalty
        grads = torch.autograd.grad(loss, weights, create_graph=True)
        moved = [
            (p - 0.1 * g).detach().requires_grad_() for p, g in zip(weights, grads, strict=True)
        ]
        judged = F.cross_entropy(F.linear(valid[0], *moved), valid[1])
        v = [0.1 * x for x in torch.autograd.grad(judged, moved)]
        decay.grad = -torch.autograd.grad(grads, decay, v)[0]
        for p, g in zip(weights, grads, strict=True):
            p.grad = g.detach()
        lower.step()
        upper.step()
        return judged.detach()

    return step


def _program() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], nn.Linear, Tensor]:
    torch.manual_seed(0)
    x, y = torch.randn(128, 20), torch.randint(0, 5, (128,))
    return (x[:64], y[:64]), (x[64:], y[64:]), nn.Linear(20, 5), torch.full((20,), -2.0)
