"""Data streams: one batch at a time, one epoch after another, on the engine's device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mlo.errors import StreamError


class Stream:
    """An iterable that starts again when it is exhausted, with the batches drawn last at hand.

    Attributes:
        held: the batches of the present tick, the last one being the tick's batch.
        used: batches that ticks have used so far.
    """

    def __init__(self, name: str, source: Iterable[Any], device: torch.device | None) -> None:
        one_batch = isinstance(source, str | bytes | torch.Tensor | Mapping)
        if one_batch or not isinstance(source, Iterable):
            raise StreamError(
                f"data stream '{name}' must be an iterable of batches, such as a DataLoader or a "
                f"list, got {type(source).__name__}; if that is the one batch there is, put it in "
                "a list"
            )
        self.name = name
        self.source = source
        self.device = device
        self.held: list[Any] = []
        self.used = 0
        self._ahead: list[Any] = []
        self._iterator: Iterator[Any] | None = None
        self._ended: list[int] = []
        self._drawn = 0

    @property
    def length(self) -> int | None:
        """Batches per epoch, where the source knows."""
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:
            return None

    @property
    def epochs(self) -> int:
        """Epochs that ticks have completed."""
        if self.length is not None:
            return self.used // self.length
        return sum(end <= self.used for end in self._ended)

    def present(self, draws: int = 1) -> Any:
        """The tick's batch; before the first tick the last of `draws` that it will use first."""
        if not self.held:
            self.held = self._ahead = [self._draw() for _ in range(draws)]
        return self.held[-1]

    def advance(self, draws: int) -> None:
        """Draw the batches of a new tick; those that were only looked at so far count as drawn."""
        drawn = self._ahead
        self.held = [*drawn[:draws], *(self._draw() for _ in range(draws - len(drawn)))]
        self._ahead = drawn[draws:]
        self.used += draws

    def _draw(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.source)
        for _ in range(2):
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._ended.append(self._drawn)
                self._iterator = iter(self.source)
            else:
                self._drawn += 1
                return batch if self.device is None else to_device(batch, self.device)
        again = "it is empty" if self._drawn == 0 else "it cannot start again, being an iterator"
        raise StreamError(
            f"data stream '{self.name}' has no batch to give: {again}; pass a DataLoader, a list "
            "or another iterable that begins anew each time it is iterated over"
        )


def make_streams(
    data: Mapping[str, Iterable[Any]], device: torch.device | None
) -> dict[str, Stream]:
    """One `Stream` per entry of the engine's `data=`."""
    return {name: Stream(name, source, device) for name, source in data.items()}


def to_device(batch: Any, device: torch.device) -> Any:
    """The same pytree with every leaf that knows `to` moved."""

    def move(leaf: Any) -> Any:
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return tree_map(move, batch)
