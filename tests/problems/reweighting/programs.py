"""The programs with a learned upper problem, small, for any hypergradient method."""

from __future__ import annotations

import torch
from torch import nn

import mlo
from problems.lfm import Settings, Validator, lfm_problems
from problems.reweighting.programs import (
    LearnedWeightsSettings,
    MetaWeightNetSettings,
    WeightNet,
    l2rw_problems,
    learned_problems,
    meta_weight_net_problems,
)
from problems.reweighting.programs.learned_weights import ExampleWeights
from problems.training import Training

N, M, FEATURES, CLASSES = 24, 12, 3, 3
UPPERS = {"meta-weight-net": "weight_net", "l2rw": "weights", "learned": "weights"}
UPPERS["lfm"] = "validator"


class Logistic(nn.Module):
    """Logistic regression with one logit fixed, so that no direction is without curvature."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES - 1)

    def forward(self, x):
        return torch.cat([self.linear(x), torch.zeros(len(x), 1)], 1)


def streams():
    """Labels are drawn at random, so no separation makes the weights of the network infinite."""
    draw = torch.Generator().manual_seed(4)

    def batch(size):
        x = torch.randn(size, FEATURES, generator=draw)
        return x, torch.randint(0, CLASSES, (size,), generator=draw), torch.arange(size)

    return {"train": [batch(N)], "valid": [batch(M)]}


def problems_of(name, method, *, unit_mean=False, training=None, constant=()):
    torch.manual_seed(1)
    training = training or Training(learning_rate=0.1, momentum=0.0, weight_decay=0.0)
    options = {"ticks": 20, "hypergradient": method}
    if name == "l2rw":
        return l2rw_problems(Logistic(), training, batch_size=N, **options)
    if name == "learned":
        settings = LearnedWeightsSettings(rate=0.05, unit_mean=unit_mean)
        return learned_problems(Logistic(), ExampleWeights(N), training, settings, **options)
    if name == "meta-weight-net":
        net, settings = WeightNet(4), MetaWeightNetSettings(unit_mean=unit_mean)
        return meta_weight_net_problems(Logistic(), net, training, settings, **options)
    encoder = nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh())
    top = Validator(
        encoder,
        coefficients=M,
        stage1_weights=None if constant else N,
        offset=-0.5,
        unit_mean=unit_mean,
    )
    settings = Settings(coefficient_rate=0.05)
    return lfm_problems(
        Logistic(),
        Logistic(),
        top,
        training=training,
        settings=settings,
        constant=constant,
        **options,
    )


def engine_of(name, method=None, *, lookahead=True, **options):
    problems = problems_of(name, method, **options)
    return mlo.Engine(problems, streams(), lookahead=lookahead)
