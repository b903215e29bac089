"""MNIST-1D: what the package makes, each time the same, and no trace in the random states."""

from __future__ import annotations

import functools
import random
import sys

import numpy as np
import pytest
import torch

from mlo.errors import DataError
from problems.datasets import load_data_set, mnist1d


@pytest.fixture
def afresh(monkeypatch):
    """What is made in a test is made anew, of 500 examples, and is forgotten afterwards."""
    from mnist1d import data

    arguments = data.get_dataset_args()
    arguments.num_samples = 500
    monkeypatch.setattr(data, "get_dataset_args", lambda: arguments)
    monkeypatch.setattr(mnist1d, "_made", functools.cache(mnist1d._made.__wrapped__))


def test_it_is_standardized_signals_of_forty_numbers_in_ten_classes():
    data = load_data_set("mnist1d")
    assert (data.source, data.classes, data.superclasses) == ("MNIST-1D", 10, None)
    for (signals, labels), size in ((data.train, 4000), (data.test, 1000)):
        assert signals.shape == (size, 1, 40)
        assert signals.dtype == torch.float32
        assert labels.dtype == torch.int64
    labels = torch.cat([data.train[1], data.test[1]])
    assert torch.bincount(labels).tolist() == [500] * 10
    signals = torch.cat([data.train[0], data.test[0]]).double()
    # Training and test part together were shifted and scaled to mean 0 and deviation 1.
    assert abs(signals.mean()) < 1e-6
    assert abs(signals.std(correction=0) - 1) < 1e-6


def test_it_is_what_the_package_makes(afresh):
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    (x, y), (x_test, y_test) = mnist1d.load_mnist1d()
    assert np.array_equal(x.squeeze(1).numpy(), made["x"].astype(np.float32))
    assert np.array_equal(x_test.squeeze(1).numpy(), made["x_test"].astype(np.float32))
    assert np.array_equal(y.numpy(), made["y"])
    assert np.array_equal(y_test.numpy(), made["y_test"])


def test_the_random_states_stay_and_do_not_matter(afresh):
    first = mnist1d.load_mnist1d()
    mnist1d._made.cache_clear()
    random.seed(7)
    np.random.seed(8)
    torch.manual_seed(9)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    second = mnist1d.load_mnist1d()
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1][1])
    assert np.random.get_state()[2:] == before[1][2:]
    assert torch.equal(torch.get_rng_state(), before[2])
    for one, other in zip(sum(first, ()), sum(second, ()), strict=True):
        assert torch.equal(one, other)


def test_changing_what_one_call_gave_does_not_change_the_next():
    before = load_data_set("mnist1d").fingerprint
    for part in mnist1d.load_mnist1d():
        for tensor in part:
            tensor.zero_()
    assert load_data_set("mnist1d").fingerprint == before


@pytest.mark.parametrize("absent", ["mnist1d", "requests"])
def test_without_the_package_or_what_it_needs_the_extra_is_named(absent, afresh, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "mnist1d"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, absent, None)
    random.seed(7)
    before = random.getstate()
    with pytest.raises(DataError, match=r"mnist1d.*" + absent + r".*mlo-engine\[data\]"):
        load_data_set("mnist1d")
    assert random.getstate() == before
