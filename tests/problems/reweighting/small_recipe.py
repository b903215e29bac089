"""The recipe `reweighting` on small networks, and plain torch loops to compare it with."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

import mlo
from mlo.recipe import Carry
from mlo.run_result import RunResult
from problems.datasets.task import Task
from problems.models import conv_classifier
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.recipe import recipe
from problems.reweighting.scene import Scene

SMALL = {
    "seeds": 1,
    "ticks": 9,
    "evaluations": 3,
    "train_batch": 300,  # of 1247: the fifth batch begins an epoch
    "valid_batch": 40,
    "network": {"width": 3, "features": 8},
    "lfm": {"encoder": {"width": 3, "features": 8}},
    "fine_tuning": {"ticks": 5, "learning_rate": 0.02},
}


def config(*programs: str, **settings: Any) -> ReweightingConfig:
    return ReweightingConfig(**{**SMALL, "programs": programs, **settings})


class Done(NamedTuple):
    """A stage that was run."""

    engine: mlo.Engine
    result: RunResult
    handed: dict[str, Any]

    def module(self, problem: str) -> torch.nn.Module:
        return self.engine.problems[problem].module


def repeat(settings: ReweightingConfig, seed: int = 0) -> dict[str, Done]:
    """Run all stages of one seed as they are, without a folder."""
    done, carry = {}, Carry()
    for stage in recipe.stages(settings):
        with stage.seeded(seed):
            made = stage.built(settings, seed, carry)
            result = made.engine.run(stage.ticks, evaluate=made.evaluate)
            handed = made.finish()
        carry = carry.and_then(handed)
        done[stage.name] = Done(made.engine, result, handed)
    return done


def task_of(settings: ReweightingConfig, seed: int = 0) -> Task:
    return Scene(settings, seed).task


def start(seed: int, part: int, *, width: int = 3, features: int = 8) -> torch.nn.Module:
    """The small classifier as the global generator makes it; 5 and 8 are the networks' parts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * seed + part)
        return conv_classifier(10, width=width, features=features)


def batches(part, size: int, seed: int, number: int):
    """Whole batches of epochs shuffled by a generator; 3 is that of training, 4 of validation."""
    x, labels = part
    generator = torch.Generator().manual_seed(1000 * seed + number)
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for k in range(len(labels) // size):
            index = order[k * size : (k + 1) * size]
            yield x[index], labels[index], index


def trained(network, drawn, ticks: int, *, rate: float = 0.05, loss=F.cross_entropy, **options):
    """SGD and half a cosine, written out once more."""
    sgd = {"momentum": 0.9, "weight_decay": 5e-4, **options}
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, **sgd)
    for t in range(ticks):
        optimizer.param_groups[0]["lr"] = rate * (1 + np.cos(np.pi * t / ticks)) / 2
        x, labels, _ = next(drawn)
        optimizer.zero_grad()
        loss(network(x), labels).backward()
        optimizer.step()
    return network


def farthest(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """The largest difference between the states of two networks."""
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    return max((left[k] - right[k]).abs().max().item() for k in left)


@contextlib.contextmanager
def evaluating(network):
    network.eval()
    with torch.no_grad():
        yield
    network.train()


def counted(network, part, *, chances=None):
    """The confusion matrix, example by example."""
    x, labels = part
    with evaluating(network):
        guessed = (network(x) if chances is None else chances(x)).argmax(1)
    counts = np.zeros((10, 10), np.int64)
    for right, guess in zip(labels.tolist(), guessed.tolist(), strict=True):
        counts[right, guess] += 1
    return counts
