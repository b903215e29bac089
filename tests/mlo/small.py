"""A network and one number above it, for tests that change one thing about them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True])


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def fit(net, top):
    return (net(X).square().mean() * top["a"].exp()) + net(X).mean()


def judge(net):
    return (net(X) - 1.0).square().mean()


def two(net=None, low=None, high=None, **settings):
    """A network and one number above it, with what a case changes."""
    given = {"module": net or nn.Linear(3, 2), "loss": fit, "optimizer": sgd, **(low or {})}
    upper = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd, **(high or {})}
    return mlo.Engine([mlo.Problem("net", **given), mlo.Problem("top", **upper)], **settings)
