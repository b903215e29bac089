"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from mlo.devices import find_device
from mlo.errors import (
    DeviceError,
)

from .small import two


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
