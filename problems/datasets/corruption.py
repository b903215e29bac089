"""Label noise put into a clean data set on purpose.

The protocols are those of J. Shu et al., "Meta-Weight-Net", NeurIPS 2019, which Learning From
Mistakes follows. Every function says which labels it changed, so that a run can be judged on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import DataError
from problems.datasets.transitions import flip_matrix, uniform_matrix


class Corruption(NamedTuple):
    """Labels after noise, [N], and the mask of the examples whose label is now wrong, [N]."""

    labels: Tensor
    corrupted: Tensor


def corrupt(labels: Tensor, matrix: Tensor, *, generator: torch.Generator) -> Corruption:
    """Draw a new label for every example from the row of its class.

    Args:
        labels: Right classes, int64 [N].
        matrix: Transition probabilities, [K, K].
        generator: Source of the draws.

    Returns:
        The new labels and the mask of those that differ from the old ones.

    Raises:
        DataError: If a label has no row.
    """
    classes = len(matrix)
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise DataError(
            f"labels: expected classes 0 to {classes - 1}, the rows of the matrix, found "
            f"{int(labels.min())} to {int(labels.max())}. Renumber the classes or enlarge it."
        )
    drawn = torch.multinomial(matrix[labels], 1, generator=generator).squeeze(1)
    return Corruption(drawn, drawn != labels)


def flip_noise(
    labels: Tensor,
    rate: float,
    *,
    classes: int,
    generator: torch.Generator,
    targets: int = 1,
) -> Corruption:
    """Flip each label with probability `rate` to one of its class's wrong classes.

    Args:
        labels: Right classes, int64 [N].
        rate: Probability that a label becomes wrong.
        classes: Number of classes K.
        generator: Source of the wrong classes and of the draws.
        targets: Wrong classes of each class.

    Returns:
        The new labels and the mask of the wrong ones.
    """
    matrix = flip_matrix(classes, rate, generator=generator, targets=targets)
    return corrupt(labels, matrix, generator=generator)


def uniform_noise(
    labels: Tensor, rate: float, *, classes: int, generator: torch.Generator
) -> Corruption:
    """Redraw each label with probability `rate` from all classes.

    Args:
        labels: Right classes, int64 [N].
        rate: Probability that a label is redrawn.
        classes: Number of classes K.
        generator: Source of the draws.

    Returns:
        The new labels and the mask of the wrong ones.
    """
    return corrupt(labels, uniform_matrix(classes, rate), generator=generator)
