"""Devices by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.devices import find_device
from mlo.errors import (
    DeviceError,
)

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def fit(net, top):
    return (net(X).square().mean() * top["a"].exp()) + net(X).mean()


def judge(net):
    return (net(X) - 1.0).square().mean()


def two(net=None, low=None, high=None, **settings):
    """A network and one number above it, with what a case changes."""
    given = {"module": net or nn.Linear(3, 2), "loss": fit, "optimizer": sgd, **(low or {})}
    upper = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd, **(high or {})}
    return mlo.Engine([mlo.Problem("net", **given), mlo.Problem("top", **upper)], **settings)


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu"), "meta"])
def test_a_device_that_is_there_is_found(name):
    assert find_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:977", 3.5, "cpu:x"])
@pytest.mark.parametrize(
    "find", [find_device, lambda name: two(device=name)], ids=["find", "engine"]
)
def test_a_device_that_is_not_there_is_named_in_a_line_with_the_cure(find, name):
    with pytest.raises(DeviceError, match=r"cannot be used here.*'cpu'.*'cuda'") as caught:
        find(name)
    assert repr(str(name)) in str(caught.value)
    assert "\n" not in str(caught.value)
