"""A run on augmented images that is cut off and goes on ends as if nothing had happened."""

from __future__ import annotations

import json

import pytest
import torch

import mlo
from mlo.plain import differences
from mlo.recipe_run import Job, carry_out
from mlo.run_folder import RunFolder
from problems import sources
from problems.datasets import cifar
from problems.reweighting import scene
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.recipe import recipe

from ..datasets.small_cifar import SIZES, records, small, written

SMALL = {"width": 3, "features": 6, "batch_norm": True}
SETTINGS = {
    "programs": ("fine-tuning", "meta-weight-net", "lfm"),
    "dataset": "cifar10",
    "seeds": 1,
    "ticks": 5,
    "evaluations": 2,
    "validation_per_class": 2,
    "train_batch": 30,  # of 80: an epoch has two batches
    "valid_batch": 8,
    "network": SMALL,
    "lfm": {"encoder": SMALL, "every": 2, "stage1_weights": True},
    "fine_tuning": {"ticks": 3},
}
STAGES = ["plain", "fine-tuning", "meta-weight-net", "lfm"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Configuration with the path of 100 generated images for training and 20 for testing."""
    path = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        layout = small("cifar10", patch)
        written(path, records(layout))
    return ReweightingConfig(**SETTINGS, data=str(path))


@pytest.fixture(autouse=True)
def few(float64, monkeypatch):
    torch.set_default_dtype(torch.float32)
    small("cifar10", monkeypatch)
    sources._loaded.cache_clear()
    yield
    sources._loaded.cache_clear()


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    path, before = tmp_path_factory.mktemp("undisturbed") / "run", torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        small("cifar10", patch)
        metrics = run(path, images)
    torch.set_default_dtype(before)
    return path, metrics


def run(path, config, *callbacks, resumed=False, save_every=1):
    with RunFolder.resume(path) if resumed else RunFolder.create(path) as folder:
        if not resumed:
            folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
        job = Job(folder=folder, quiet=True, watch=lambda _: callbacks, save_every=save_every)
        return carry_out(recipe, config, job)


def carries(path):
    found = {p.parent.name: torch.load(p, weights_only=True) for p in path.rglob("carry.pt")}
    assert sorted(found) == sorted(STAGES)
    return found


def looks(path):
    lines = [
        json.loads(line)
        for file in sorted(path.rglob("records.jsonl"))
        for line in file.read_text().splitlines()
    ]
    return [
        {k: v for k, v in line.items() if k != "seconds"}
        for line in lines
        if line["kind"] == "evaluation"
    ]


class Cut(mlo.Callback):
    """Ends a run in the middle of a stage."""

    def __init__(self, stage, tick):
        self.stage, self.tick, self.begun = stage, tick, 0

    def on_start(self, record):
        self.begun += 1

    def on_tick(self, record):
        if (self.begun, record.tick) == (self.stage + 1, self.tick):
            raise KeyboardInterrupt


def test_the_images_are_augmented_and_the_generated_ones(images, undisturbed):
    made = scene.Scene(images, 0)
    x, _, index = next(iter(made.train()))
    plain = made.prepare(made.task.train[0][index])
    assert x.shape == plain.shape == (30, 3, 32, 32)
    assert (x != plain).double().mean() > 0.5
    assert made.data.source.startswith("CIFAR-10 (unverified copy ")
    assert sum(SIZES["cifar10"].values()) == 120
    assert cifar.LAYOUTS["cifar10"].files == SIZES["cifar10"]
    _, metrics = undisturbed
    assert {metric.stage for metric in metrics} == set(STAGES)


@pytest.mark.parametrize("cut", [(0, 3, 1), (1, 1, 1), (2, 2, None), (3, 3, 1)], ids=str)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(images, undisturbed, tmp_path, cut):
    (stage, tick, save_every), (path, expected) = cut, undisturbed
    other = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(other, images, Cut(stage, tick), save_every=save_every)
    assert len(list(other.rglob("done.json"))) == stage
    torch.manual_seed(99)  # says nothing
    sources._loaded.cache_clear()  # a process of its own would load them again
    assert run(other, images, resumed=True, save_every=save_every) == expected
    for name in ("metrics.csv", "results.json"):
        assert (other / name).read_bytes() == (path / name).read_bytes()
    assert not list(differences(carries(path), carries(other)))
    assert looks(other) == looks(path)


def test_other_images_are_told_from_those_of_the_run(images, tmp_path):
    other = tmp_path / "run"
    copy = written(tmp_path / "copy", records(cifar.LAYOUTS["cifar10"]))
    config = images.model_copy(update={"data": str(copy)})
    with pytest.raises(KeyboardInterrupt):
        run(other, config, Cut(0, 3))
    written(copy, records(cifar.LAYOUTS["cifar10"], seed=1))
    sources._loaded.cache_clear()
    with pytest.raises(mlo.MloError, match="data"):
        run(other, config, resumed=True)
