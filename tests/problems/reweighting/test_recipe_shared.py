"""All programs of one repetition share data, start and order of the batches."""

from __future__ import annotations

import pytest
import torch

from problems.reweighting import scene as scenes
from problems.reweighting.programs import WeightNet
from problems.reweighting.recipe import BUILDS, recipe
from problems.reweighting.scene import Scene

from .small_recipe import Carry, config, farthest, repeat, start, task_of

ALL = [*BUILDS]
CLASSIFIERS = {"lfm": ("learner", "relearner"), "ensemble": ("members",)}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def given(monkeypatch):
    """Batches as the streams give them: a list for each stream, in the order they are made."""
    made = []

    class Listening(scenes.ResidentStream):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append((len(self.x), []))

        def __iter__(self):
            log = made[self.number][1]
            for batch in super().__iter__():
                log.append(batch)
                yield batch

        def __new__(cls, *args, **kwargs):
            self = super().__new__(cls)
            self.number = len(made)
            return self

    monkeypatch.setattr(scenes, "ResidentStream", Listening)
    return made


def alike(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 2])
def test_all_programs_see_the_same_batches_in_the_same_order(given, seed):
    settings = config(*(n for n in ALL if n not in ("plain+valid", "fine-tuning")))
    repeat(settings, seed)
    task = task_of(settings, seed)
    train = [log for size, log in given if size == len(task.train[1])]
    valid = [log for size, log in given if size == len(task.valid[1])]
    assert [len(log) for log in train] == [9] * 8
    assert [len(log) for log in valid] == [9] * 4
    for logs in (train, valid):
        assert all(alike(log, logs[0]) for log in logs[1:])
    # An epoch has four batches, and each is drawn without repetition and in a new order.
    epochs = [torch.cat([b[2] for b in train[0][k : k + 4]]) for k in (0, 4)]
    assert all(len(epoch.unique()) == 1200 for epoch in epochs)
    assert not torch.equal(*epochs)
    for x, labels, index in train[0]:
        assert torch.equal(x, task.train[0][index])
        assert torch.equal(labels, task.train[1][index])


def test_another_seed_gives_other_batches(given):
    settings = config("plain")
    repeat(settings, 0)
    repeat(settings, 1)
    repeat(settings, 0)
    logs = [log for _, log in given]
    assert not alike(logs[0], logs[1])
    assert alike(logs[0], logs[2])


@pytest.mark.parametrize("seed", [0, 2])
def test_all_programs_start_with_the_same_classifier(seed):
    settings = config(*ALL)
    torch.manual_seed(12345)  # says nothing
    for stage in recipe.stages(settings):
        carry = Carry({"plain network": dict(start(seed, 5).state_dict())})
        made = stage.setup(settings, seed, carry)
        for problem in CLASSIFIERS.get(stage.name, ("classifier",)):
            module = made.engine.problems[problem].module
            first = module.members[0] if problem == "members" else module
            assert farthest(first, start(seed, 5)) == 0, stage.name
            assert farthest(first, start(seed + 1, 5)) > 0.1
        if stage.name == "lfm":
            learner, relearner = (made.engine.problems[n].module for n in CLASSIFIERS["lfm"])
            assert all(
                a.data_ptr() != b.data_ptr()
                for a, b in zip(learner.parameters(), relearner.parameters(), strict=True)
            )


def test_parts_are_drawn_by_their_own_seeds_and_leave_the_global_state_alone():
    scene = Scene(config("lfm"), 4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = scene.validator().encoder
    net = scene.weight_net(5)
    again = scene.validator().encoder
    assert torch.equal(torch.get_rng_state(), before)
    assert farthest(first, again) == 0
    torch.manual_seed(4007)
    assert farthest(net, WeightNet(5)) == 0
    assert farthest(first, Scene(config("lfm"), 5).validator().encoder) > 0.1


def test_a_repetition_made_again_is_bit_for_bit_the_same():
    settings = config("plain", "lfm", ticks=5)
    torch.manual_seed(1)
    one = repeat(settings, 1)
    torch.manual_seed(2)
    two = repeat(settings, 1)
    for name, stage in one.items():
        for problem in stage.engine.problems:
            assert farthest(stage.module(problem), two[name].module(problem)) == 0
        assert [e.metrics for e in stage.result.evaluations] == [
            e.metrics for e in two[name].result.evaluations
        ]
    other = repeat(settings, 2)
    assert farthest(one["plain"].module("classifier"), other["plain"].module("classifier")) > 0.01


def test_what_a_program_is_compared_with_changes_nothing_of_it():
    alone, beside = repeat(config("lfm")), repeat(config("plain", "meta-weight-net", "lfm"))
    for problem in ("learner", "relearner", "validator"):
        assert farthest(alone["lfm"].module(problem), beside["lfm"].module(problem)) == 0
    # Without weights of its own, the learner of LFM is the plain network.
    plain = beside["plain"].module("classifier")
    assert farthest(beside["lfm"].module("learner"), plain) <= 2e-6
