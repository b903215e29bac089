"""Accuracies are taken in evaluation mode and leave networks as they were."""

from __future__ import annotations

import pytest
import torch

from mlo.recipe import Carry
from problems.nas.recipe import recipe
from problems.nas.scene import Scene

from .small import config


@pytest.fixture(autouse=True)
def single_precision(float64):
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("program", ["random", "lfm", "darts"])
def test_accuracies_are_those_of_evaluation_mode(program):
    settings = config(program)
    stage = recipe.stages(settings)[0]
    setup = stage.setup(settings, 0, Carry())
    for _ in range(3):
        setup.engine.step()
    names = [n for n in setup.engine.problems if n not in ("architecture", "architect")]
    networks = {name: setup.engine.problems[name].module for name in names}
    before = {n: {k: t.clone() for k, t in m.state_dict().items()} for n, m in networks.items()}
    result = setup.engine.run(1, evaluate={n: setup.evaluate[n] for n in names})
    scene = Scene(settings, 0)
    part = scene.shares.test if program == "random" else scene.shares.valid
    for name, network in networks.items():
        assert network.training
        found = result.last(name)["accuracy"]
        given = ()
        if program != "random":
            top = setup.engine.problems["architect" if program == "lfm" else "architecture"].module
            architecture = top.architecture if program == "lfm" else top
            given = (architecture(),)
        moved = {k: t.clone() for k, t in network.state_dict().items()}
        network.eval()
        with torch.no_grad():
            logits = network(part[0], *given)
        assert found == (logits.argmax(1) == part[1]).double().mean().item()
        network.train()
        # One batch has been seen since, by the move; none by the measurement.
        assert all(torch.equal(t, moved[k]) for k, t in network.state_dict().items())
        seen = {k for k in moved if k.endswith("num_batches_tracked")}
        assert {(moved[k] - before[name][k]).item() for k in seen} == {1}
        with torch.no_grad():
            logits = network(part[0], *given)
        assert found != (logits.argmax(1) == part[1]).double().mean().item()
