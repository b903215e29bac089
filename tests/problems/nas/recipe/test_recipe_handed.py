"""Settings reach the programs, and images reach the networks as they should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlo.carry import Carry
from problems import sources
from problems.datasets import DataSet
from problems.nas import setups
from problems.nas.recipe import recipe
from problems.nas.scene import Scene

from .small import config


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def images(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(1, 256, (60, 3, 32, 32), generator=draw, dtype=torch.uint8)
    part = x, torch.arange(60) % 3
    data = DataSet("cifar10", "", "f" * 64, part, part, 3)
    monkeypatch.setattr(sources, "_loaded", lambda *_: data)


def given_to(monkeypatch, name, made, stage):
    """The keywords with which a program is declared when a stage is built, and its engine."""
    declare, found = getattr(setups, name), {}

    def watching(*args, **options):
        found.update(options)
        return declare(*args, **options)

    monkeypatch.setattr(setups, name, watching)
    (built,) = (each for each in recipe.stages(made) if each.name == stage)
    found["engine"] = built.setup(made, 0, Carry()).engine
    return found


def test_settings_of_the_training_from_scratch_reach_it(monkeypatch, images):
    own = {"auxiliary": True, "auxiliary_weight": 0.3, "drop_path": 0.2, "label_smoothing": 0.1}
    made = config("random", space="cell", nodes=1, dataset="cifar10", evaluation=own)
    found = given_to(monkeypatch, "evaluation_problems", made, "random evaluation")
    del own["auxiliary"]
    assert {name: found.get(name) for name in own} == own
    assert (found["ticks"], found["training"]) == (5, made.evaluation.training)
    assert found["engine"].problems["network"].module.auxiliary is not None


@pytest.mark.parametrize("path", [True, False])
def test_settings_of_a_search_by_lfm_reach_it(monkeypatch, path):
    search = {"lfm": {"mistake_path": path, "rate": 0.02, "encoder_rate": 0.03, "every": 2}}
    made = config("lfm", search=search, hypergradient="finite-difference")
    found = given_to(monkeypatch, "lfm_problems", made, "lfm search")
    assert found["constant"] == (() if path else ("learner",))
    assert (found["ticks"], found["training"]) == (6, made.search.training)
    assert found["settings"] == made.search.lfm
    assert type(found["hypergradient"]).__name__ == "FiniteDifference"
    groups = found["engine"].problems["architect"].optimizer.param_groups
    assert [group["lr"] for group in groups][:2] == [0.02, 0.03]


@pytest.mark.parametrize("program", ["darts", "darts-first-order"])
def test_settings_of_a_search_by_darts_reach_it(monkeypatch, program):
    made = config(program, search={"architecture": {"rate": 0.02}}, lookahead=True)
    found = given_to(monkeypatch, "darts_problems", made, f"{program} search")
    assert (found["ticks"], found["training"]) == (6, made.search.training)
    assert found["upper"] == made.search.architecture
    method = {"darts": "OneStep", "darts-first-order": "Direct"}[program]
    assert type(found["hypergradient"]).__name__ == method
    assert found["engine"].schedule.lookahead == (program == "darts")


def test_a_square_is_cut_out_of_images_from_scratch_only(images):
    made = config("random", dataset="cifar10", evaluation={"cutout": 8})
    scene = Scene(made, 0)
    x, *_ = next(iter(scene.evaluated()["train"]))
    cut = (x == 0).all(1).sum((1, 2))  # no random pixel is the mean of all its channels
    assert (cut <= 64).all()
    assert (cut >= 16).all()  # a quarter of it is inside, wherever it lies
    assert (cut == 64).any()
    for stream in scene.searched().values():
        assert not (next(iter(stream))[0] == 0).all(1).any()


class Spy(nn.Module):
    """Answers class 0, and remembers what it was given and in which mode."""

    def __init__(self):
        super().__init__()
        self.seen, self.modes = [], []

    def forward(self, x, *more):
        self.seen.append(x)
        self.modes.append((self.training, torch.is_grad_enabled(), more))
        return nn.functional.one_hot(torch.zeros(len(x), dtype=torch.int64), 3).float()


def test_accuracies_are_of_networks_in_evaluation_mode_on_plain_images(images):
    scene, spy = Scene(config("random", dataset="cifar10", evaluation={"cutout": 8}), 0), Spy()
    mixing = {"layers": torch.ones(3, 3)}
    assert scene.accuracy(spy, scene.shares.test, mixing) == pytest.approx(1 / 3)
    assert spy.modes == [(False, False, (mixing,))]
    assert spy.training
    mean = torch.tensor([125.3, 123.0, 113.9]).view(3, 1, 1)
    deviation = torch.tensor([63.0, 62.1, 66.7]).view(3, 1, 1)
    expected = (scene.shares.test[0].float() - mean) / deviation
    torch.testing.assert_close(spy.seen[0], expected, rtol=1e-5, atol=1e-5)
