"""How stored inputs reach the networks: normalized, and in training cropped and flipped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from problems import sources
from problems.datasets import DataSet
from problems.datasets.preparation import preparations
from problems.reweighting import scene

from .small_recipe import config

CONSTANTS = {  # on the scale of bytes
    "cifar10": ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]),
    "cifar100": (
        [255 * m for m in (0.5071, 0.4867, 0.4408)],
        [255 * s for s in (0.2675, 0.2565, 0.2761)],
    ),
    "animal10n": (
        [255 * m for m in (0.485, 0.456, 0.406)],
        [255 * s for s in (0.229, 0.224, 0.225)],
    ),
}
SIDES = {"cifar10": 32, "cifar100": 32, "animal10n": 16}
MARGINS = {"cifar10": 4, "cifar100": 4, "animal10n": 2}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def images(name, size=150):
    draw = torch.Generator().manual_seed(1)
    shape = (size, 3, SIDES[name], SIDES[name])
    x = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    labels = torch.arange(size) % 10
    return DataSet(name, name, "f", (x, labels), (x[:20], labels[:20]), 10)


def normalized(name, x):
    mean, deviation = (np.reshape(c, (3, 1, 1)) for c in CONSTANTS[name])
    return (x.numpy().astype(np.float64) - mean) / deviation


@pytest.mark.parametrize("name", CONSTANTS)
def test_measured_images_are_normalized_by_published_constants(monkeypatch, name):
    data = images(name)
    monkeypatch.setattr(sources, "_loaded", lambda *_: data)
    made = scene.Scene(config("plain", train_batch=20, valid_batch=20, validation_per_class=2), 0)
    x = made.task.test[0]
    assert x.dtype == torch.uint8
    np.testing.assert_allclose(made.prepare(x).numpy(), normalized(name, x), rtol=1e-5, atol=1e-5)
    for stream, part in ((made.train(), made.task.train), (made.valid(), made.task.valid)):
        x, _, index = next(iter(stream))
        assert np.abs(x.numpy() - normalized(name, part[0][index])).mean() > 0.1  # augmented
    still = config("plain", train_batch=20, valid_batch=20, validation_per_class=2, augment=False)
    made = scene.Scene(still, 0)
    for stream, part in ((made.train(), made.task.train), (made.valid(), made.task.valid)):
        x, labels, index = next(iter(stream))
        expected = normalized(name, part[0][index])
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(labels, part[1][index])


@pytest.mark.parametrize("name", CONSTANTS)
def test_images_for_training_are_crops_of_mirrored_margins_some_of_them_turned(name):
    data, side, p = images(name, 40), SIDES[name], MARGINS[name]
    trained, _ = preparations(data, augment=True)
    x = data.train[0]
    found = trained(x, torch.Generator().manual_seed(3)).numpy()
    enlarged = np.pad(normalized(name, x), ((0, 0), (0, 0), (p, p), (p, p)), mode="reflect")
    seen = []
    for image, whole in zip(found, enlarged, strict=True):
        for down, right, turn in itertools.product(range(2 * p + 1), range(2 * p + 1), (1, -1)):
            crop = whole[:, down : down + side, right : right + side][:, :, ::turn]
            if np.allclose(image, crop, atol=1e-4):
                seen.append((down, right, turn))
                break
    assert len(seen) == 40  # each is such a crop
    assert len({turn for *_, turn in seen}) == 2
    assert {d for d, *_ in seen} | {r for _, r, _ in seen} == set(range(2 * p + 1))


def test_numbers_are_taken_as_they_are():
    x = torch.randn(30, 1, 40)
    data = DataSet("mnist1d", "", "", (x, torch.arange(30) % 3), None, 3)
    assert preparations(data, augment=True) == (None, None)
    made = scene.Scene(config("plain"), 0)
    assert made.prepare(made.task.test[0]) is made.task.test[0]
