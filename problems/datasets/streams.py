"""Streams: data loaders over tensors that hand out whole batches with their index."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from mlo.errors import ConfigurationError, DataError


def stream(
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    generator: torch.Generator,
    drop_last: bool = True,
) -> DataLoader:
    """Make a loader of shuffled batches (x [b, ...], y [b], index [b]).

    The index is the position in `x`. It is what a quantity that belongs to an example (a weight,
    a coefficient) is stored under, since the place in a shuffled batch says nothing.

    Args:
        x: Inputs, [N, ...].
        y: Labels, [N].
        batch_size: Examples b of one batch.
        generator: Source of the order, drawn anew in each epoch.
        drop_last: Leave out a last batch that is not full.

    Returns:
        A loader whose iteration is one epoch.

    Raises:
        ConfigurationError: If `batch_size` leaves no batch at all.
        DataError: If `x` and `y` differ in length.
    """
    if len(x) != len(y):
        raise DataError(
            f"x, y: expected one label per input, found {len(x)} inputs and {len(y)} labels. "
            "Index both with the same index set."
        )
    if batch_size < 1 or (drop_last and batch_size > len(x)):
        raise ConfigurationError(
            f"batch_size: expected 1 to {len(x)}, the number of examples, found {batch_size}. "
            "Choose a smaller batch or drop_last=False."
        )
    dataset = TensorDataset(x, y, torch.arange(len(x)))
    order = RandomSampler(dataset, generator=generator)
    # The sampler yields lists of positions, so each tensor is indexed once per batch and
    # nothing is collated example by example.
    batches = BatchSampler(order, batch_size, drop_last)
    # Without a generator of its own the loader would draw a seed from the global one each epoch.
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=generator)
