"""Programs with a loss that is fixed beforehand, against loops of plain torch."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from torch import nn

import mlo
from problems.reweighting.programs import (
    class_balanced_problems,
    focal_problems,
    plain_problems,
)
from problems.reweighting.programs.judging import valid_loss

from .by_hand import CASES, CLIPPED, HEAVY, data, error, network, parameters

COUNTS, BETA = [40, 7, 1], 0.99


def plain(p, labels):
    return -p.log().mean()


def focal(p, labels):
    return ((1 - p).pow(1.5) * -p.log()).sum() / len(p)


def balanced(p, labels):
    raw = [float((1 - Decimal(BETA)) / (1 - Decimal(BETA) ** n)) for n in COUNTS]
    return sum(
        raw[k] * 3 / sum(raw) * -torch.log(one) for one, k in zip(p, labels.tolist(), strict=True)
    ) / len(p)


PROGRAMS = {
    "plain": (plain_problems, {}, plain),
    "focal": (focal_problems, {"gamma": 1.5}, focal),
    "class-balanced": (class_balanced_problems, {"counts": COUNTS, "beta": BETA}, balanced),
}


@pytest.mark.parametrize("training", [CLIPPED, HEAVY], ids=["clipped", "momentum"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("shape", ["mlp", "conv-clipped-nesterov"])
def test_a_run_is_a_plain_loop_of_torch(name, shape, training):
    make, settings, loss_of = PROGRAMS[name]
    case = CASES[shape]
    nets = [network(case.network, case.classes) for _ in range(2)]
    streams = {"train": data(case)["train"]}
    mlo.Engine(make(nets[0], training, ticks=4, **settings), streams).run(ticks=4)
    optimizer = torch.optim.SGD(
        nets[1].parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )
    for tick, (x, labels, _) in enumerate(streams["train"][:4]):
        cosine = (1 + math.cos(math.pi * tick / 4)) / 2
        optimizer.param_groups[0]["lr"] = training.learning_rate * cosine
        optimizer.zero_grad()
        p = torch.softmax(nets[1](x), 1)[torch.arange(case.n), labels]
        loss_of(p, labels).backward()
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(nets[1].parameters(), training.clip_norm)
        optimizer.step()
    assert error(parameters(nets[0]), parameters(nets[1])) < 1e-10
    for a, b in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_validation_is_the_mean_over_the_validation_batch():
    net, batch = network("mlp", 3), data(CASES["mlp"])["valid"][0]
    p = torch.softmax(net(batch[0]), 1)[torch.arange(7), batch[1]]
    torch.testing.assert_close(valid_loss(net, batch), -p.log().sum() / 7)
