"""A recipe of stages whose draws, batches and dropout would show every disturbance."""

from __future__ import annotations

import random

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlo
from mlo.recipe import Recipe, RecipeConfig, Setup, Stage
from mlo.recipe_run import Job, carry_out
from mlo.run_folder import RunFolder


class Config(RecipeConfig):
    steps: int = Field(3, ge=1, description="ticks of each stage")


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


class Staged(Recipe[Config]):
    """Trains a network, goes on from it, and then has a look at what was handed on.

    The start, the order of the batches, the dropout masks and the noise of the loss come from the
    global random states.
    """

    name, summary, config = "staged", "Random through and through.", Config

    def __init__(self):
        self.built = []

    def stages(self, config):
        return [
            Stage("first", config.steps, self.first),
            Stage("go on", config.steps, self.go_on),
            Stage("third", 1, self.third),
        ]

    def first(self, config, seed, carry):
        return self._setup("first", network())

    def go_on(self, config, seed, carry):
        net = network()
        net.load_state_dict(carry["first"])
        return self._setup("second", net)

    def third(self, config, seed, carry):
        net = network()
        net.load_state_dict(carry["second"])
        assert not torch.equal(carry["first"]["0.weight"], carry["second"]["0.weight"])
        return self._setup("third", net)

    def _setup(self, key, net):
        self.built.append(key)

        def loss(net, batch):
            noise = random.random() + np.random.rand()
            return (net(batch[0]) - noise).square().mean()

        def optimizer(params):
            return torch.optim.Adam(params, 0.1)

        data = DataLoader(TensorDataset(torch.randn(12, 3)), batch_size=5, shuffle=True)
        problem = mlo.Problem("net", module=net, loss=loss, optimizer=optimizer)
        engine = mlo.Engine([problem], {"batch": data})
        x = torch.randn(7, 3)
        evaluate = {"out": (lambda net: {"vector": net(x)[:, 0], "sum": net(x).sum()}, 2)}
        return Setup(engine, evaluate, lambda: {key: net.state_dict()})


def begun(path, recipe, config) -> RunFolder:
    folder = RunFolder.create(path)
    folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
    return folder


def run(folder: RunFolder, recipe, config, *callbacks, save_every=None):
    """Run in a folder that was begun or resumed; callbacks are made from the folder of a stage."""
    job = Job(
        folder=folder,
        quiet=True,
        watch=lambda place: [make(place) for make in callbacks],
        save_every=save_every,
    )
    with folder:
        return carry_out(recipe, config, job)


def files(path):
    """All files whose content is decided by the settings alone, by their names."""
    found = [*path.rglob("carry.pt"), path / "metrics.csv", path / "config.json"]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in found}
