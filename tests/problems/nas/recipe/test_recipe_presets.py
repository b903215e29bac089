"""The presets are the published protocols, and all of them can be built."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from mlo.carry import Carry
from mlo.configuration import combine, configure
from problems import sources
from problems.datasets import DataSet
from problems.nas.config import NASConfig
from problems.nas.presets import PRESETS
from problems.nas.recipe import recipe

CIFAR = [f"{data}-{program}" for data in ("cifar10", "cifar100") for program in ("darts", "lfm")]


class Search(NamedTuple):
    """A published search: H. Liu et al., and the code of LFM's authors."""

    batch: int
    rate: float
    floor: float
    decay: float


SEARCHES = {"darts": Search(64, 0.025, 1e-3, 3e-4), "lfm": Search(32, 0.01, 2.5e-4, 1e-4)}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def configured(name, **own) -> NASConfig:
    return configure(NASConfig, combine(PRESETS[name], own), title=name)


def rates(training, ticks, moves):
    """The rates of these moves, as the optimizer of a network has them."""
    network = torch.nn.Linear(1, 1)
    problem = training.problem("n", network, lambda n: n.weight.sum(), ticks=ticks)
    problem.optimizer.step()  # no gradient, no move; torch warns of schedulers that go first
    schedule, found = problem.scheduler, []
    for move in moves:
        schedule.last_epoch = move - 1
        schedule.step()
        found += schedule.get_last_lr()
    return found


def test_there_are_presets_for_each_protocol_and_small_ones():
    assert set(PRESETS) == {"quick", "mnist1d", "cells", "cifar10-small", "imagenet", *CIFAR}
    assert recipe.presets == PRESETS


@pytest.mark.parametrize("name", CIFAR)
def test_searches_on_cifar_are_the_published_ones(name):
    config, (dataset, program) = configured(name), name.split("-")
    search, fact = config.search, SEARCHES[program]
    epoch = 25_000 // fact.batch
    assert (config.dataset, config.programs, config.space) == (dataset, (program,), "cell")
    assert (config.nodes, config.operations, config.augment) == (4, None, True)
    assert (config.lookahead, config.hypergradient) == (True, "one-step")
    assert (search.channels, search.layers) == (16, 8)
    assert (search.train_batch, search.valid_batch, search.train_portion) == (
        *(fact.batch, fact.batch),
        0.5,
    )
    assert search.ticks == 50 * epoch == {64: 19_500, 32: 39_050}[fact.batch]
    training = search.training
    assert (training.momentum, training.nesterov, training.clip_norm) == (0.9, False, 5.0)
    assert training.weight_decay == fact.decay
    found = rates(training, search.ticks, [0, epoch - 1, epoch, 25 * epoch, 49 * epoch])
    middle = (fact.rate + fact.floor) / 2
    assert found[:2] == pytest.approx([fact.rate] * 2)
    assert found[1] > found[2]  # once an epoch
    assert found[3] == pytest.approx(middle)
    last = middle - (fact.rate - fact.floor) / 2 * 0.99802672842827  # cos(pi / 50)
    assert found[4] == pytest.approx(last)


def test_the_upper_problems_are_the_published_ones():
    for name in ("cifar10-darts", "cifar100-darts"):
        upper = configured(name).search.architecture
        assert (upper.optimizer, upper.betas, upper.rate) == ("adam", (0.5, 0.999), 3e-4)
        assert (upper.schedule, upper.weight_decay, upper.clip_norm) == ("constant", 1e-3, None)
    for name in ("cifar10-lfm", "cifar100-lfm"):
        lfm = configured(name).search.lfm
        assert (lfm.optimizer, lfm.betas, lfm.clip_norm) == ("adam", (0.5, 0.999), 5.0)
        assert (lfm.rate, lfm.encoder_rate, lfm.coefficient_rate) == (1e-3, 1e-2, 1e-2)
        assert (lfm.schedule, lfm.floor, lfm.every) == ("cosine", 2.5e-4, 1)
        assert (lfm.weight_decay, lfm.validator_weight_decay) == (1e-5, 1e-4)
        assert (lfm.encoder.name, lfm.keyed_by, lfm.initial_coefficient) == ("resnet18", "slot", 1)
        assert (lfm.temperature, lfm.normalize, lfm.offset, lfm.unit_mean) == (1, False, 0, False)
        assert lfm.mistake_path


@pytest.mark.parametrize("name", CIFAR)
def test_training_on_cifar_is_the_published_one(name):
    evaluation = configured(name).evaluation
    assert (evaluation.channels, evaluation.layers, evaluation.batch) == (36, 20, 96)
    assert evaluation.ticks == 600 * 520
    assert (evaluation.drop_path, evaluation.cutout, evaluation.label_smoothing) == (0.2, 16, 0)
    assert (evaluation.auxiliary, evaluation.auxiliary_weight) == (True, 0.4)
    assert (evaluation.stem, evaluation.on) == ("cifar", "all")
    training = evaluation.training
    assert (training.momentum, training.weight_decay, training.clip_norm) == (0.9, 3e-4, 5.0)
    found = rates(training, evaluation.ticks, [0, 519, 300 * 520, 520 * 600])
    assert found == pytest.approx([0.025, 0.025, 0.0125, 0.0], abs=1e-12)


def test_training_on_imagenet_is_the_published_one():
    config = configured("imagenet")
    evaluation, epoch = config.evaluation, 1_281_167 // 128
    assert (config.dataset, config.image_size, config.space) == ("imagenet", 224, "cell")
    assert (config.programs, config.genotype) == (("given",), "darts-v2")
    assert (evaluation.channels, evaluation.layers, evaluation.batch) == (48, 14, 128)
    assert evaluation.ticks == 250 * epoch
    assert (evaluation.drop_path, evaluation.cutout, evaluation.label_smoothing) == (0, None, 0.1)
    assert (evaluation.auxiliary, evaluation.auxiliary_weight) == (True, 0.4)
    assert (evaluation.stem, evaluation.on) == ("imagenet", "all")
    training = evaluation.training
    assert (training.momentum, training.weight_decay, training.clip_norm) == (0.9, 3e-5, 5.0)
    found = rates(training, evaluation.ticks, [0, epoch - 1, epoch, 249 * epoch])
    assert found == pytest.approx([0.1, 0.1, 0.097, 0.1 * 0.97**249])


SMALL = {
    "seeds": 1,
    "search": {"channels": 2, "layers": 3, "train_batch": 2, "valid_batch": 2},
    "evaluation": {"channels": 2, "layers": 3, "batch": 2},
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_built(name, monkeypatch):
    """With its data in their layout, operations and options, on the smallest networks."""
    config = configured(name, **SMALL)
    if config.dataset not in ("digits", "mnist1d"):
        side = {"imagenet": 224}.get(config.dataset, 32)
        draw = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (12, 3, side, side), generator=draw, dtype=torch.uint8)
        part = x, torch.arange(12) % 3
        data = DataSet(config.dataset, config.dataset, "f" * 64, part, part, 3)
        monkeypatch.setattr(sources, "_loaded", lambda *_: data)
    stages = recipe.stages(config)
    assert [stage.name for stage in stages if "search" in stage.name] == [
        f"{program} search" for program in config.programs if program != "given"
    ]
    recipe.check(config)  # builds the searches, and every loss is evaluated once
    others = {"programs": ("random",), "genotype": None}
    if config.programs != ("given",):  # that one is built above
        other = config.model_copy(update=others)
        (stage,) = recipe.stages(other)
        engine = stage.setup(other, 0, Carry()).engine
        head = engine.problems["network"].module.auxiliary if config.space == "cell" else None
        assert (head is not None) == config.evaluation.auxiliary
