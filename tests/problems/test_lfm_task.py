"""The data of a repetition of Learning From Mistakes."""

from __future__ import annotations

import pytest
import torch

from problems.datasets import load_data_set
from problems.lfm import task
from problems.lfm.config import ReweightingConfig
from problems.lfm.task import make_task


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)  # the precision of the images


def config(**settings) -> ReweightingConfig:
    return ReweightingConfig(seeds=2, ticks=8, **settings)


DATA = {
    "flip": {},
    "uniform": {"noise": "uniform"},
    "no noise": {"noise": "none"},
    "imbalance": {"imbalance": 0.1},
    "imbalance, uniform": {"imbalance": 0.02, "noise": "uniform", "rate": 0.6},
    "few for validation": {"validation_per_class": 2, "valid_batch": 20},
}


@pytest.mark.parametrize("settings", DATA.values(), ids=DATA)
def test_the_three_sets_are_disjoint_and_only_training_labels_are_wrong(monkeypatch, settings):
    digits = load_data_set("digits")
    x, labels = digits.train
    # Every image holds its own position, so that the parts tell which images they took.
    numbered = torch.arange(len(x), dtype=torch.float32).reshape(-1, 1, 1, 1).expand_as(x)
    counted = digits._replace(train=(numbered, labels))
    monkeypatch.setattr(task, "load_data_set", lambda name: counted)
    chosen = config(**settings)
    for seed in range(5):
        data = make_task(chosen, seed)
        index = [part[0][:, 0, 0, 0].long() for part in (data.train, data.valid, data.test)]
        taken = torch.cat(index)
        assert len(taken.unique()) == len(taken)
        assert (len(taken) == len(x)) is (chosen.imbalance is None)
        assert torch.equal(data.valid[1], labels[index[1]])
        assert torch.equal(data.test[1], labels[index[2]])
        assert set(data.valid[1].bincount().tolist()) == {chosen.validation_per_class}
        right = labels[index[0]]
        assert torch.equal(data.corrupted, data.train[1] != right)
        expected = {"none": 0.0, "flip": chosen.rate, "uniform": 0.9 * chosen.rate}[chosen.noise]
        deviation = (expected * (1 - expected) / len(right)) ** 0.5
        assert abs(data.corrupted.double().mean() - expected) <= 4 * deviation
        if chosen.imbalance is not None:
            sizes = right.bincount()
            tail = [int(int(sizes[0]) * chosen.imbalance ** (k / 9)) for k in range(10)]
            assert sizes.tolist() == tail


def test_a_seed_decides_the_data_and_another_seed_draws_others():
    first, again, other = (make_task(config(), seed) for seed in (3, 3, 4))
    assert first.classes == again.classes == 10
    pairs = list(zip(first[:4], again[:4], strict=True))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert not torch.equal(first.test[0], other.test[0])
