"""A vector of many numbers, such as the weights of all examples, as a record keeps it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

PERCENTS = range(101)
"""The percentiles that are kept: all whole ones, from the smallest number to the largest."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How many numbers there were, their mean, and their percentiles.

    Attributes:
        count: how many.
        mean: their arithmetic mean.
        percentiles: the 0th, 1st, ... 100th, linearly interpolated; NaN where a number is NaN,
            and infinite between a finite number and an infinite one.
    """

    count: int
    mean: float
    percentiles: tuple[float, ...]

    @classmethod
    def of(cls, values: Tensor) -> Distribution:
        """Describe the entries of a tensor of one dimension, [N] with N > 0."""
        numbers = values.detach().cpu().to(torch.float64).sort().values
        # torch.quantile takes 16 million numbers at most; a sorted vector takes any.
        places = torch.linspace(0, len(numbers) - 1, len(PERCENTS), dtype=torch.float64)
        below, above = numbers[places.floor().long()], numbers[places.ceil().long()]
        between = torch.lerp(below, above, places.frac())
        # The difference that lerp takes is NaN between equal infinities, and at times beside one.
        infinite = below.isinf() | above.isinf()
        percentiles = torch.where(infinite, below + above, between)
        if numbers.isnan().any():
            percentiles = torch.full_like(percentiles, torch.nan)
        return cls(len(numbers), numbers.mean().item(), tuple(percentiles.tolist()))

    def plain(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return dataclasses.asdict(self)


def is_vector(value: Any) -> bool:
    """Whether a value is a tensor [N] of real numbers with N > 1, which has a distribution."""
    real = isinstance(value, Tensor) and not value.is_complex()
    return real and value.dim() == 1 and len(value) > 1
