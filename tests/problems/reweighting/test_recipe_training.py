"""What the recipe trains is what plain torch loops on the same batches make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlo.recipe import Carry
from problems.reweighting.recipe import BUILDS, recipe

from .small_recipe import (
    batches,
    config,
    counted,
    evaluating,
    farthest,
    repeat,
    start,
    task_of,
    trained,
)

CLOSE = 2e-6
"""Between float32 weights of networks that were trained alike."""


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def differences(one, other):
    return farthest(one.module("classifier"), other)


@pytest.mark.parametrize("seed", [0, 3])
def test_plain_is_a_plain_loop_and_fine_tuning_goes_on_where_it_ended(seed):
    settings = config("plain", "fine-tuning")
    done, task = repeat(settings, seed), task_of(settings, seed)
    by_hand = trained(start(seed, 5), batches(task.train, 300, seed, 3), 9)
    assert differences(done["plain"], by_hand) <= CLOSE
    assert differences(done["plain"], start(seed, 5)) > 0.01
    ended = done["plain"].module("classifier").state_dict()
    handed = done["plain"].handed["plain network"]
    assert all(torch.equal(handed[key], ended[key]) for key in ended)
    assert handed.keys() == ended.keys()
    tuned = trained(by_hand, batches(task.valid, 40, seed, 4), 5, rate=0.02)
    assert differences(done["fine-tuning"], tuned) <= CLOSE
    assert differences(done["fine-tuning"], done["plain"].module("classifier")) > 0.001
    assert done["fine-tuning"].result.ticks == 5
    assert done["plain"].result.ticks == 9


def test_fine_tuning_begins_bit_for_bit_where_plain_training_ended():
    settings = config("fine-tuning")
    done = repeat(settings)
    tuning = {stage.name: stage for stage in recipe.stages(settings)}["fine-tuning"]
    again = tuning.setup(settings, 0, Carry(done["plain"].handed))
    begun = again.engine.problems["classifier"].module
    assert farthest(begun, done["plain"].module("classifier")) == 0


def test_plain_is_added_where_only_fine_tuning_is_asked_for_and_changes_nothing():
    def stages(*programs):
        return [(stage.name, stage.ticks) for stage in recipe.stages(config(*programs))]

    assert stages("fine-tuning") == [("plain", 9), ("fine-tuning", 5)]
    assert stages("plain") == [("plain", 9)]
    assert stages("lfm", "plain") == [("plain", 9), ("lfm", 9)]
    assert stages(*BUILDS) == [(n, 5 if n == "fine-tuning" else 9) for n in BUILDS]
    alone, with_it = repeat(config("plain")), repeat(config("fine-tuning"))
    assert farthest(*(d["plain"].module("classifier") for d in (alone, with_it))) == 0
    assert "plain network" not in alone["plain"].handed


def test_plain_with_validation_examples_has_them_behind_the_training_examples():
    settings = config("plain+valid")
    done, task = repeat(settings), task_of(settings)
    both = tuple(torch.cat(pair) for pair in zip(task.train, task.valid, strict=True))
    assert len(both[1]) == 1347
    by_hand = trained(start(0, 5), batches(both, 300, 0, 3), 9)
    assert differences(done["plain+valid"], by_hand) <= CLOSE


def test_focal_is_a_loop_with_the_focal_loss():
    settings = config("focal", focal={"gamma": 2.5})

    def loss(logits, labels):
        right = F.softmax(logits, 1)[torch.arange(len(labels)), labels]
        return (-((1 - right) ** 2.5) * right.log()).mean()

    done, task = repeat(settings), task_of(settings)
    by_hand = trained(start(0, 5), batches(task.train, 300, 0, 3), 9, loss=loss)
    assert differences(done["focal"], by_hand) <= CLOSE


def test_class_balanced_counts_the_labels_as_they_are_given():
    settings = config(
        "class-balanced",
        imbalance=0.2,
        noise="flip",
        class_balanced={"beta": 0.99},
        train_batch=100,
    )
    done, task = repeat(settings), task_of(settings)
    given = np.bincount(task.train[1].numpy(), minlength=10)
    effective = (1 - 0.99**given) / 0.01
    weights = torch.tensor(1 / effective / np.mean(1 / effective), dtype=torch.float32)

    def loss(logits, labels):
        return (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()

    by_hand = trained(start(0, 5), batches(task.train, 100, 0, 3), 9, loss=loss)
    assert differences(done["class-balanced"], by_hand) <= CLOSE
    assert done["class-balanced"].handed["class-balanced"]["data"]["counts"] == given.tolist()
    # The counts of the right labels would have been others.
    assert sorted(given.tolist(), reverse=True) != given.tolist()


def test_the_members_of_the_ensemble_are_trained_as_if_alone():
    settings = config("plain", "ensemble")
    done, task = repeat(settings, 1), task_of(settings, 1)
    members = list(done["ensemble"].module("members").members)
    assert len(members) == 2
    for member, part in zip(members, (5, 8), strict=True):
        alone = trained(start(1, part), batches(task.train, 300, 1, 3), 9)
        assert farthest(member, alone) <= CLOSE
    assert farthest(members[0], done["plain"].module("classifier")) <= CLOSE
    assert farthest(*members) > 0.1
    assert farthest(start(1, 5), start(1, 8)) > 0.1


def test_the_ensemble_predicts_the_mean_of_the_probabilities():
    settings = config("ensemble", ticks=40, training={"learning_rate": 0.2}, rate=0.1)
    done, task = repeat(settings), task_of(settings)
    ensemble, (x, labels) = done["ensemble"].module("members"), task.test

    def chances(x):
        return torch.stack([F.softmax(member(x), 1) for member in ensemble.members]).mean(0)

    with evaluating(ensemble):
        mean = chances(x)
        torch.testing.assert_close(ensemble(x).exp(), mean, rtol=1e-5, atol=1e-7)
        logits = torch.stack([member(x) for member in ensemble.members]).mean(0)
        # The mean of the logits, and either member, would be told apart.
        for other in (logits, *(member(x) for member in ensemble.members)):
            assert not torch.equal(mean.argmax(1), other.argmax(1))
    counts = counted(ensemble, task.test, chances=chances)
    found = done["ensemble"].handed["ensemble"]["confusion"]
    assert found["members"].tolist() == counts.tolist()
    accuracy = done["ensemble"].result.last("members")["accuracy"]
    assert accuracy == pytest.approx(counts.trace() / len(labels), abs=1e-15)


def test_clipping_of_the_ensemble_is_over_both_members():
    settings = config("ensemble", training={"clip_norm": 0.05, "momentum": 0.0})
    done, task = repeat(settings), task_of(settings)
    networks = torch.nn.ModuleList([start(0, 5), start(0, 8)])
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.05, weight_decay=5e-4)
    drawn = batches(task.train, 300, 0, 3)
    for t in range(9):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * t / 9)) / 2
        x, labels, _ = next(drawn)
        optimizer.zero_grad()
        sum(F.cross_entropy(network(x), labels) for network in networks).backward()
        norm = torch.nn.utils.clip_grad_norm_(networks.parameters(), 0.05)
        assert norm > 0.05
        optimizer.step()
    assert farthest(done["ensemble"].module("members").members, networks) <= CLOSE


def test_training_settings_reach_the_classifiers():
    training = {
        "learning_rate": 0.1,
        "momentum": 0.8,
        "nesterov": True,
        "weight_decay": 0.01,
        "milestones": [0.3, 0.7],
        "factor": 0.2,
        "clip_norm": 0.1,
    }
    settings = config("plain", training=training)
    done, task = repeat(settings), task_of(settings)
    network, drawn = start(0, 5), batches(task.train, 300, 0, 3)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01
    )
    for t in range(9):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.2 ** ((t >= 3) + (t >= 6))
        x, labels, _ = next(drawn)
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
    assert differences(done["plain"], network) <= CLOSE
