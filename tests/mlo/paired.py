"""`net`, whose loss reads `upper`, and `upper`, judged at `net`, by several methods."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo

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
