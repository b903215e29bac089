"""Random vectors of the parameters' shapes, from a generator of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from mlo.types import Tensors


class Probes:
    """Draws vectors; the same seed draws the same ones, and no other random state is touched.

    Args:
        like: tensors whose shapes, dtypes and devices the vectors have.
        seed: of the generators, one a device.
    """

    def __init__(self, like: Tensors, seed: int) -> None:
        self._like = like
        self._generators = {
            device: torch.Generator(device).manual_seed(seed) for device in {t.device for t in like}
        }

    def signs(self) -> Tensors:
        """1 or -1, with equal probability."""
        return tuple(
            torch.randint(0, 2, t.shape, generator=g, device=t.device).to(t.dtype) * 2 - 1
            for t, g in self._drawing()
        )

    def gaussian(self) -> Tensors:
        """Standard normal numbers."""
        return tuple(
            torch.randn(t.shape, generator=g, device=t.device, dtype=t.dtype)
            for t, g in self._drawing()
        )

    def _drawing(self) -> list[tuple[Tensor, torch.Generator]]:
        return [(t, self._generators[t.device]) for t in self._like]
