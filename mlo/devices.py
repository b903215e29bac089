"""Devices by name, made sure of before anything is moved there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mlo.errors import DeviceError


def find_device(device: torch.device | str) -> torch.device:
    """The device of that name, where it is usable here.

    Raises:
        DeviceError: there is no such device.
    """
    try:
        # A tensor on it, since a name alone does not say whether the device is there.
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"device {str(device)!r} cannot be used here ({reason}); use 'cpu', or 'cuda' where "
            "torch.cuda.is_available()"
        ) from error


def accelerators(tensors: Iterable[Tensor]) -> tuple[torch.device, ...]:
    """The devices of the tensors that have a random state of their own."""
    return tuple({t.device for t in tensors if t.device.type not in ("cpu", "meta")})


def generating(used: Iterable[torch.device]) -> tuple[torch.device, ...]:
    """All devices whose random states may be drawn from: those used, and those in use at all."""
    found = dict.fromkeys(used)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found |= dict.fromkeys(torch.device("cuda", i) for i in range(torch.cuda.device_count()))
    return tuple(found)
