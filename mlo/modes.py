"""Training and evaluation modes: kept for a while, or set for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from torch import nn


@contextlib.contextmanager
def preserved_modes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Whatever is switched inside, these modules and their parts leave in the mode they came in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def in_modes(parts: Sequence[nn.Module], modes: Sequence[bool]) -> Iterator[None]:
    """The given parts in the given modes inside, and as they were afterwards."""
    with preserved_modes(parts):
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
        yield
