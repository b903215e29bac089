"""Random states: taken, put back, and replayed, so that dropout draws the same mask twice."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlo.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class RandomState:
    """The states of Python's, NumPy's and PyTorch's global generators, devices included."""

    python: Any
    numpy: Any
    host: Tensor
    devices: tuple[tuple[torch.device, Tensor], ...]

    @classmethod
    def capture(cls, devices: Sequence[torch.device] = ()) -> RandomState:
        """The present states; `devices` are the accelerators whose generators count."""
        states = tuple((d, torch.get_device_module(d).get_rng_state(d)) for d in devices)
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), states)

    def restore(self) -> None:
        """Put the states back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.host)
        for device, state in self.devices:
            torch.get_device_module(device).set_rng_state(state, device)

    def plain(self) -> dict[str, Any]:
        """The states as plain values (see `mlo.plain`): words as tensors, devices as strings.

        Raises:
            CheckpointError: NumPy's global generator is not its own, the Mersenne twister.
        """
        if not isinstance(self.numpy, tuple):
            raise CheckpointError(
                "NumPy's global generator: expected MT19937, found "
                f"{self.numpy['bit_generator']}; leave it as NumPy makes it"
            )
        version, words, gauss = self.python
        kind, keys, *rest = self.numpy
        return {
            "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "host": self.host,
            "devices": [[str(device), state] for device, state in self.devices],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RandomState:
        """The states that `plain()` gave."""
        version, words, gauss = plain["python"]
        kind, keys, *rest = plain["numpy"]
        return cls(
            (version, tuple(words.tolist()), gauss),
            (kind, keys.numpy().astype(np.uint32), *rest),
            plain["host"],
            tuple((torch.device(device), state) for device, state in plain["devices"]),
        )


@contextlib.contextmanager
def preserved(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Whatever is drawn inside leaves the random states as they were."""
    before = RandomState.capture(devices)
    try:
        yield
    finally:
        before.restore()


@contextlib.contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw inside what was drawn after `state` was captured, and leave no trace."""
    with preserved([device for device, _ in state.devices]):
        state.restore()
        yield


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    """Draw inside what `name` decides, and leave the random states of the host as they were."""
    with preserved():
        seed = zlib.crc32(name.encode())
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
