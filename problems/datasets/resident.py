"""Streams of shuffled batches from tensors that lie on the device already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mlo.errors import CheckpointError, ConfigurationError, DataError, StreamError
from mlo.plain import differences
from problems.datasets.augmentation import Transform
from problems.datasets.sets import Examples


class ResidentStream:
    """Shuffled batches (x [b, ...], y [b], index [b]) of tensors that stay where they are.

    Each iteration is one epoch in a new order. The order is drawn when the first batch of the
    epoch is asked for and copied to the device once; a batch is then one selection from each
    tensor, and nothing is done example by example. Order and augmentation draw from one generator
    of the CPU and from nothing else, so examples and draws are the same on every device. The
    order is not that of `stream` with an equal generator.

    Only one epoch is under way at a time: a new iterator begins a new epoch, whatever is left of
    the last one is dropped, and the older iterator gives a `StreamError` when it is asked again.

    `state_dict` may be called at any moment between two batches. It says how many batches of the
    epoch are given, and the states of the generator before its order and now; the order itself is
    drawn again. After `load_state_dict` the next iterator gives what is left of that epoch, which
    may be nothing, and the one after it a new epoch. A generator that several streams of one
    engine share is put back as well, since all of them were saved at one moment.

    Args:
        x: Inputs, [N, ...].
        y: Labels, [N], on the same device.
        batch_size: Examples b of one batch.
        generator: Source of the order and of the augmentation, of the CPU whatever the device.
        transform: Called as `transform(x, generator)` with the inputs of each batch.
        drop_last: Leave out a last batch that is not full.

    Raises:
        ConfigurationError: If `batch_size` leaves no batch at all, or the generator is of another
            device or the global one.
        DataError: If `x` and `y` differ in length or device, or are empty.
    """

    _before: Tensor | None  # state of the generator before the order was drawn
    _order: Tensor | None

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        generator: torch.Generator,
        transform: Transform | None = None,
        drop_last: bool = True,
    ) -> None:
        _check_data(x, y)
        _check_settings(len(x), batch_size, generator, drop_last)
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.generator = generator
        self.transform = transform
        self.drop_last = drop_last
        self._newest = 0  # iterator
        self._loaded = False
        self._between_epochs()

    def __len__(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[Examples]:
        """Begin an epoch, or go on with the one that was just loaded."""
        if not self._loaded:
            self._between_epochs()
        self._loaded = False
        self._newest += 1
        return self._epoch(self._newest)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as plain values.

        Labels and the first input of the batch given last are among them, as what the data of a
        resumed run are compared with.
        """
        return {
            "layout": self._layout(),
            "given": self._given,
            "before": self._before,
            "now": self.generator.get_state(),
            "last": self._last(self._order, self._given),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where `state_dict` was called; the transform must be that of the run.

        Raises:
            CheckpointError: The data or the batches are not those of the state; nothing is
                changed then.
        """
        if state["layout"] != self._layout():
            raise CheckpointError(
                f"ResidentStream: expected {state['layout']}, as when the state was saved, found "
                f"{self._layout()}. Build the stream as it was."
            )
        before, given = state["before"], state["given"]
        order = None if before is None else self._drawn(torch.Generator().set_state(before))
        if any(differences(state["last"], self._last(order, given))):
            raise CheckpointError(
                "ResidentStream: the examples of the last batch are not what they were when the "
                "state was saved. Resume with the data of the run."
            )
        self._order, self._before, self._given = order, before, given
        self.generator.set_state(state["now"])
        self._newest += 1
        self._loaded = True

    def _between_epochs(self) -> None:
        self._given = 0
        self._before = self._order = None

    def _epoch(self, number: int) -> Iterator[Examples]:
        self._check_newest(number)
        if self._order is None:
            self._before = self.generator.get_state()
            self._order = self._drawn(self.generator)
        while self._given < len(self):
            batch = self._batch(self._order, self._given)
            self._given += 1
            yield batch
            self._check_newest(number)
        self._between_epochs()

    def _check_newest(self, number: int) -> None:
        if number != self._newest:
            raise StreamError(
                "ResidentStream: a newer iterator has begun, or a state was loaded, so that this "
                "one has nothing more to give. Make a stream for each loop that runs at one time."
            )

    def _drawn(self, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(self.x), generator=generator, device="cpu")
        return order.to(self.x.device, non_blocking=True)

    def _batch(self, order: Tensor, number: int) -> Examples:
        start = number * self.batch_size
        # A copy, so that a saved batch does not carry the whole order with it.
        index = order[start : start + self.batch_size].clone()
        x, y = self.x.index_select(0, index), self.y.index_select(0, index)
        return (x if self.transform is None else self.transform(x, self.generator)), y, index

    def _layout(self) -> dict[str, Any]:
        return {
            "examples": len(self.x),
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
        }

    def _last(self, order: Tensor | None, given: int) -> list[Tensor]:
        """Labels and the first input of the batch given last."""
        if order is None or not given:
            return []
        index = order[(given - 1) * self.batch_size : given * self.batch_size]
        return [self.y[index].cpu(), self.x[index[:1]].cpu()]


def _check_data(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise DataError(
            f"x, y: expected one label per input, found {len(x)} inputs and {len(y)} labels. "
            "Index both with the same index set."
        )
    if not len(x):
        raise DataError("x, y: expected at least one example, found none. Check the index set.")
    if x.device != y.device:
        raise DataError(
            f"x, y: expected both on one device, found {x.device} and {y.device}. "
            "Move both to the device of the run first."
        )


def _check_settings(
    examples: int, batch_size: int, generator: torch.Generator, drop_last: bool
) -> None:
    if batch_size < 1 or (drop_last and batch_size > examples):
        raise ConfigurationError(
            f"batch_size: expected 1 to {examples}, the number of examples, found {batch_size}. "
            "Choose a smaller batch or drop_last=False."
        )
    if generator.device.type != "cpu" or generator is torch.default_generator:
        found = "the global one" if generator is torch.default_generator else generator.device
        raise ConfigurationError(
            f"generator: expected a generator of its own on the CPU, found {found}. "
            "Pass torch.Generator().manual_seed(seed), whatever the device of the data."
        )
