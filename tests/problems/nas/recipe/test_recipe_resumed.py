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
from problems.nas.recipe import recipe

from ...datasets.small_cifar import records, small, written
from .small import config

CELLS = {
    "space": "cell",
    "nodes": 1,
    "operations": ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"),
    "evaluation": {"auxiliary": True, "drop_path": 0.4, "cutout": 8, "label_smoothing": 0.1},
}
SETTINGS = {
    "cells": ("darts", {**CELLS, "lookahead": True}),
    "chain": ("darts-first-order", {"evaluation": {"cutout": 8}, "first_seed": 3}),
}
TICKS = {"search": 3, "evaluation": 2}


def settings(name, data):
    program, own = SETTINGS[name]
    search = {"ticks": 3, "channels": 1, "train_batch": 20, "valid_batch": 15}  # of 50 each
    search["architecture"] = {"rate": 0.1}
    search["lfm"] = {"rate": 0.1, "every": 2}
    own = {**own, "evaluation": {**own["evaluation"], "ticks": 2, "batch": 60}}  # of 100
    shared = {"dataset": "cifar10", "data": str(data), "evaluations": 2, "search": search}
    return config(program, "lfm", **shared, **own)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The path of 100 generated images for training and 20 for testing."""
    with pytest.MonkeyPatch.context() as patch:
        layout = small("cifar10", patch)
        return written(tmp_path_factory.mktemp("cifar"), records(layout))


@pytest.fixture(autouse=True)
def few(float64, monkeypatch):
    torch.set_default_dtype(torch.float32)
    small("cifar10", monkeypatch)
    sources._loaded.cache_clear()
    yield
    sources._loaded.cache_clear()


def run(path, config, watch=None, *, resumed=False, save_every=1):
    with RunFolder.resume(path) if resumed else RunFolder.create(path) as folder:
        if not resumed:
            folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
        job = Job(folder=folder, quiet=True, watch=watch, save_every=save_every)
        return carry_out(recipe, config, job)


def looks(path):
    lines = [
        json.loads(line)
        for file in sorted(path.rglob("records.jsonl"))
        for line in file.read_text().splitlines()
    ]
    kept = [line for line in lines if line["kind"] == "evaluation"]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in kept]


def carries(path):
    return {p.parent.name: torch.load(p, weights_only=True) for p in path.rglob("carry.pt")}


class Cut(mlo.Callback):
    """Ends the run after a tick of a stage, but never twice after the same one."""

    def __init__(self, stage, seen, wanted):
        self.stage, self.seen, self.wanted = stage, seen, wanted

    def on_tick(self, record):
        moment = self.stage, record.tick
        if moment in self.wanted - self.seen:
            self.seen.add(moment)
            raise KeyboardInterrupt


def run_cut(path, config, wanted, save_every=1):
    """Run until it ends, and go on whenever it was cut off; return metrics, and where it was."""
    seen, resumed = set(), False
    while True:
        try:
            watch = lambda place: [Cut(place.path.name, seen, wanted)]  # noqa: E731
            return run(path, config, watch, resumed=resumed, save_every=save_every), seen
        except KeyboardInterrupt:
            torch.manual_seed(99 + len(seen))  # says nothing
            sources._loaded.cache_clear()  # a process of its own would load them again
            resumed = True


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_cut_off_after_every_tick_ends_as_if_it_had_not_been(images, tmp_path, name):
    made, (program, _) = settings(name, images), SETTINGS[name]
    whole, other = tmp_path / "whole", tmp_path / "other"
    expected = run(whole, made)
    stages = [f"{p}-{s}" for p in (program, "lfm") for s in TICKS]
    wanted = {(s, t) for s in stages[:3] for t in range(TICKS[s.rpartition("-")[2]])}
    found, seen = run_cut(other, made, wanted)
    assert seen == wanted
    check_same(whole, other, expected, found, stages)


def test_ticks_behind_the_newest_state_are_made_again(images, tmp_path):
    made = settings("chain", images)
    whole, other = tmp_path / "whole", tmp_path / "other"
    expected = run(whole, made)
    stages = [f"{p}-{s}" for p in ("darts-first-order", "lfm") for s in TICKS]
    wanted = {(stages[0], 0), (stages[2], 2), (stages[3], 0)}
    found, seen = run_cut(other, made, wanted, save_every=2)
    assert seen == wanted
    check_same(whole, other, expected, found, stages)


def check_same(whole, other, expected, found, stages):
    assert found == expected
    assert {metric.stage.replace(" ", "-") for metric in found} == set(stages)
    for name in ("metrics.csv", "results.json"):
        assert (other / name).read_bytes() == (whole / name).read_bytes()
    kept = carries(whole)
    assert sorted(kept) == sorted(stages)
    for stage in (stages[0], stages[2]):
        history = kept[stage][stage.rpartition("-")[0] + " search"]["history"]
        assert history["ticks"].tolist() == [0, 2, 3]
        assert all((m[0] != m[2]).any() for m in history["mixing"].values())
    assert not list(differences(kept, carries(other)))
    assert looks(other) == looks(whole)
    # Twice in each stage: two evaluations of DARTS, three of LFM, one of what was found.
    assert len(looks(whole)) == 2 * (2 + 3 + 1 + 1)


@pytest.mark.parametrize("stage", ["darts-first-order-search", "darts-first-order-evaluation"])
def test_other_images_are_told_from_those_of_the_run(images, tmp_path, stage):
    content = cifar.LAYOUTS["cifar10"]
    copy, other = written(tmp_path / "copy", records(content)), tmp_path / "run"
    made, seen = settings("chain", copy), set()
    with pytest.raises(KeyboardInterrupt):
        run(other, made, lambda place: [Cut(place.path.name, seen, {(stage, 1)})])
    written(copy, records(content, seed=1))
    sources._loaded.cache_clear()
    with pytest.raises(mlo.MloError, match="data"):
        run(other, made, resumed=True)
