"""The presets are the published protocols, and they run."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mlo.configuration import configure
from problems import sources
from problems.datasets import DataSet, cifar
from problems.datasets.task import draw_task
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.presets import PRESETS
from problems.reweighting.recipe import recipe

FOLDER = os.environ.get("MLO_DATA", "")
ALL = os.environ.get("MLO_PRESETS") == "all"


class Fact(NamedTuple):
    """One published protocol."""

    dataset: str
    network: str
    examples: int  # for training, after the meta set and the thinning
    meta: int
    epochs: int
    falls: tuple[int, ...]  # epochs, counted from 1, that begin with a smaller rate
    rate: float = 0.1
    factor: float = 0.1
    nesterov: bool = False
    noise: tuple[str, float] = ("none", 0.0)
    imbalance: float | None = None
    stage1: float = 1.1


TOTALS = {
    10: {10: 20391, 20: 16989, 50: 13967, 100: 12380, 200: 11177},
    100: {10: 19183, 20: 15594, 50: 12354, 100: 10626, 200: 9304},
}
FACTS = {
    f"cifar{k}-imbalance-{ratio}": Fact(
        *(f"cifar{k}", "resnet32", total, 10 * k, 120, (80, 90)),
        nesterov=True,
        imbalance=1 / ratio,
        stage1=1.0,
    )
    for k, totals in TOTALS.items()
    for ratio, total in totals.items()
}
FACTS |= {
    f"cifar{k}-{kind}-{percent}": Fact(
        *(f"cifar{k}", "wrn-28-10", 49_000, 1000, 100, (80, 100)),
        noise=(kind, percent / 100),
    )
    for k in (10, 100)
    for kind, percent in (("flip2", 20), ("flip2", 40), ("uniform", 40), ("uniform", 60))
}
FACTS["animal10n"] = Fact(
    *("animal10n", "vgg19-bn", 49_000, 1000, 120, (40, 80, 100)), rate=0.01, factor=0.2
)


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def configured(name, **more) -> ReweightingConfig:
    return configure(ReweightingConfig, {**PRESETS[name], **more}, title=name)


def test_there_is_a_preset_for_each_protocol_and_a_quick_one():
    small = "cifar10-imbalance-100-small"
    assert set(PRESETS) == {"quick", small, *FACTS}
    whole, short = configured("cifar10-imbalance-100"), configured(small)
    assert (short.imbalance, short.training) == (whole.imbalance, whole.training)
    assert (short.network.name, short.ticks) == ("small", 123 * 3)
    assert len(FACTS) == 10 + 8 + 1
    assert recipe.presets == PRESETS
    assert configured("quick").dataset == "digits"


@pytest.mark.parametrize("name", FACTS)
def test_a_preset_is_the_published_protocol(name):
    config, fact = configured(name), FACTS[name]
    assert (config.dataset, config.network.name) == (fact.dataset, fact.network)
    assert (config.train_batch, config.valid_batch) == (100, 100)
    assert config.ticks == fact.epochs * (fact.examples // 100)
    training = config.training
    assert (training.learning_rate, training.factor) == (fact.rate, fact.factor)
    assert (training.momentum, training.weight_decay) == (0.9, 5e-4)
    assert (training.nesterov, training.clip_norm) == (fact.nesterov, 5.0)
    assert (config.noise, config.noisy) == (fact.noise[0], fact.noise[1] > 0)
    assert not config.noisy or config.rate == fact.noise[1]
    assert config.imbalance == fact.imbalance
    classes = 100 if fact.dataset == "cifar100" else 10
    assert config.validation_per_class * classes == fact.meta
    assert config.augment
    assert config.held_per_class is None
    assert config.lookahead
    assert config.hypergradient == "one-step"
    assert config.image_size == (64 if name == "animal10n" else None)
    assert {"plain", "l2rw", "meta-weight-net", "lfm"} <= set(config.programs)
    upper = config.meta_weight_net
    assert (upper.optimizer, upper.rate, upper.hidden) == ("adam", 1e-3, 100)
    lfm = config.lfm
    assert (lfm.encoder.name, lfm.optimizer, lfm.momentum) == ("resnet18", "sgd", 0.9)
    rates = lfm.encoder_rate, lfm.coefficient_rate, lfm.stage1_rate
    assert rates == (1e-5, 1e-5, 1e-2)
    assert (lfm.clip_norm, lfm.temperature, lfm.normalize) == (5.0, 1.0, False)
    assert (lfm.stage1_weights, lfm.initial_stage1_weight) == (True, fact.stage1)
    assert (lfm.offset, lfm.unit_mean, lfm.mistake_path) == (0.0, False, True)


@pytest.mark.parametrize("name", FACTS)
def test_rates_fall_at_whole_epochs_within_one_of_the_published_ones(name):
    config, fact = configured(name), FACTS[name]
    batches = fact.examples // 100
    network = torch.nn.Linear(1, 1)
    problem = config.training.problem("n", network, lambda n: n.weight.sum(), ticks=config.ticks)
    schedule = problem.scheduler
    assert isinstance(schedule, torch.optim.lr_scheduler.MultiStepLR)
    assert schedule.gamma == fact.factor
    assert schedule.get_last_lr() == [fact.rate]
    moves = sorted(schedule.milestones.elements())
    assert all(move % batches == 0 for move in moves)
    falls = [move // batches + 1 for move in moves]  # the first epoch with the smaller rate
    assert len(falls) == len(fact.falls)
    assert all(abs(a - b) <= 1 for a, b in zip(falls, fact.falls, strict=True))
    assert falls[-1] <= fact.epochs


@pytest.mark.parametrize("name", [name for name in FACTS if name.startswith("cifar")])
def test_the_data_of_a_preset_give_the_ticks_of_its_epochs(name):
    config, fact = configured(name), FACTS[name]
    classes = 100 if fact.dataset == "cifar100" else 10
    labels = torch.arange(50_000) % classes
    x = torch.zeros(50_000, 1)
    data = DataSet(fact.dataset, "", "", (x, labels), (x[:100], labels[:100]), classes)
    task = draw_task(
        data,
        0,
        noise=config.noise,
        rate=config.rate,
        imbalance=config.imbalance,
        validation_per_class=config.validation_per_class,
        test_fraction=config.test_fraction,
    )
    assert len(task.train[1]) == fact.examples
    assert len(task.valid[1]) == fact.meta
    assert len(task.train[1]) // config.train_batch * fact.epochs == config.ticks


def first_ticks(config, *programs, ticks=1):
    """The first ticks of each program; all was moved in the last, and by finite numbers."""
    for stage in recipe.stages(config):
        made = stage.setup(config, 0, None)
        if ticks > 1:
            made.engine.run(ticks - 1)
        before = {n: [*p.module.parameters()] for n, p in made.engine.problems.items()}
        before = {n: [p.detach().clone() for p in params] for n, params in before.items()}
        result = made.engine.run(1)
        moves = {move.problem: move for move in result.records[0].moves}
        assert moves.keys() == before.keys()
        for name, problem in made.engine.problems.items():
            assert np.isfinite(float(moves[name].loss))
            after = [*problem.module.parameters()]
            assert all(p.isfinite().all() for p in after)
            if name == "validator" and config.valid_batch < 25:
                continue  # no example of a small batch need have a companion of its class
            assert float(moves[name].gradient_norm) > 0
            assert any(not torch.equal(a, b) for a, b in zip(after, before[name], strict=True))
    assert [stage.name for stage in recipe.stages(config)] == list(programs)


there = (pathlib.Path(FOLDER) / cifar.LAYOUTS["cifar10"].folder).is_dir()
needs_images = pytest.mark.skipif(
    not (FOLDER and there),
    reason="needs CIFAR-10 in its binary layout in the folder that MLO_DATA names",
)
PROGRAMS = ("plain", "meta-weight-net", "lfm")


@needs_images
def test_a_preset_takes_a_tick_on_real_images():
    # Its networks and its data, but a quarter of its batches, which take a quarter of the time.
    small = {"train_batch": 25, "valid_batch": 25}
    name = "cifar10-imbalance-200"
    first_ticks(configured(name, programs=PROGRAMS, **small), *PROGRAMS)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """Random images in the layout of CIFAR-100."""
    folder, draw = tmp_path_factory.mktemp("hundred"), np.random.default_rng(0)
    for file, count in cifar.LAYOUTS["cifar100"].files.items():
        fine = np.arange(count) % 100
        pixels = draw.integers(0, 256, (count, 3072), dtype=np.uint8)
        rows = np.column_stack([(fine % 20).astype(np.uint8), fine.astype(np.uint8), pixels])
        (folder / file).write_bytes(rows.tobytes())
    yield str(folder)
    sources._loaded.cache_clear()


@pytest.mark.skipif(not ALL, reason="takes minutes; MLO_PRESETS=all asks for it")
@pytest.mark.parametrize("name", [name for name in FACTS if name.startswith("cifar")])
def test_every_preset_of_cifar_takes_two_ticks(name, request):
    more = {"programs": PROGRAMS}
    if FACTS[name].network == "wrn-28-10":
        more |= {"train_batch": 4, "valid_batch": 4}
    if FACTS[name].dataset == "cifar100":
        more["data"] = request.getfixturevalue("hundred")
    elif not there:
        pytest.skip("needs CIFAR-10 in its binary layout in the folder that MLO_DATA names")
    first_ticks(configured(name, **more), *PROGRAMS, ticks=2)
