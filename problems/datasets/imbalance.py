"""Long-tailed class sizes made from a balanced set.

The protocol is that of Y. Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
CVPR 2019, which Learning From Mistakes follows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import ConfigurationError


class Subset(NamedTuple):
    """Positions of the examples that stay, [n] ascending, and the mask of those removed, [N]."""

    kept: Tensor
    removed: Tensor


def long_tail_counts(largest: int, classes: int, factor: float) -> list[int]:
    """Count the examples of each class of a long-tailed set: N_k = int(N_max f^(k / (K - 1))).

    Args:
        largest: Examples N_max of the most frequent class, class 0.
        classes: Number of classes K, at least 2.
        factor: Imbalance f, the size of the rarest class over that of the largest.

    Returns:
        One count per class, falling.

    Raises:
        ConfigurationError: If `factor` or `classes` is outside its range or a class gets nothing.
    """
    if classes < 2 or not 0 < factor <= 1:
        raise ConfigurationError(
            "classes, factor: expected at least 2 classes and a factor above 0 and at most 1, "
            f"found {classes} and {factor}. A factor of 0.05 keeps 5 % of the last class."
        )
    counts = [int(largest * factor ** (k / (classes - 1))) for k in range(classes)]
    if counts[-1] < 1:
        raise ConfigurationError(
            f"factor: expected every class to keep an example, found {counts.count(0)} empty "
            f"classes at factor {factor} with {largest} examples in the largest. "
            f"Choose at least {1 / max(largest, 1):.3g}."
        )
    return counts


def long_tail(labels: Tensor, factor: float, *, generator: torch.Generator) -> Subset:
    """Thin out a labelled set to long-tailed class sizes; N_max is the size of its smallest class.

    Args:
        labels: Classes 0 to K - 1, int64 [N].
        factor: Imbalance f of `long_tail_counts`.
        generator: Source of the choice.

    Returns:
        The positions of the examples kept and the mask of those removed.
    """
    sizes = torch.bincount(labels)
    counts = long_tail_counts(int(sizes.min()), len(sizes), factor)
    removed = torch.ones_like(labels, dtype=torch.bool)
    for label, count in enumerate(counts):
        members = (labels == label).nonzero().squeeze(1)
        removed[members[torch.randperm(len(members), generator=generator)[:count]]] = False
    return Subset((~removed).nonzero().squeeze(1), removed)
