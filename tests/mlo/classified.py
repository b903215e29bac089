"""A classifier with a learned decay, for tests of ticks and runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import mlo

RATE, UPPER_RATE = 0.1, 0.01


def net_of(dropout=0.0):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(dropout), nn.Linear(4, 2))


def batch(size=6):
    return torch.randn(size, 3), torch.randint(2, (size,))


def train_loss(net, decay, train):
    x, y = train
    logits = net(x)
    loss = F.cross_entropy(logits, y) + decay["log"].exp() * net[0].weight.square().sum()
    return loss, {"accuracy": (logits.argmax(1) == y).to(x.dtype).mean(), "size": len(y)}


def valid_loss(net, valid):
    x, y = valid
    return F.cross_entropy(net(x), y)


def engine(net=None, *, method=None, **settings):
    net = net_of() if net is None else net
    trainable = [p for p in net.parameters() if p.requires_grad]
    lower = mlo.Problem(
        "net",
        module=net,
        loss=train_loss,
        optimizer=torch.optim.SGD(trainable, RATE),
        hypergradient=method,
    )
    upper = mlo.Problem(
        "decay",
        params={"log": torch.tensor(-2.0), "idle": torch.ones(2, 2)},
        loss=valid_loss,
        optimizer=lambda params: torch.optim.SGD(params, UPPER_RATE),
    )
    data = settings.pop("data", None) or {"train": [batch()], "valid": [batch()]}
    return mlo.Engine([lower, upper], data, **settings)
