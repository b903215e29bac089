"""Label noise put into a clean data set on purpose.

The protocols are those of J. Shu et al., "Meta-Weight-Net", NeurIPS 2019, which Learning From
Mistakes follows. Every function says which labels it changed, so that a run can be judged on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, DataError


class Corruption(NamedTuple):
    """Labels after noise, [N], and the mask of the examples whose label is now wrong, [N]."""

    labels: Tensor
    corrupted: Tensor


def flip_matrix(
    classes: int, rate: float, *, generator: torch.Generator, targets: int = 1
) -> Tensor:
    """Draw the transition matrix T of flip noise; every class has its own wrong classes.

    T_kk = 1 - rate, and T_kl = rate / targets for `targets` other classes l drawn for each k.

    Args:
        classes: Number of classes K.
        rate: Probability that a label becomes wrong.
        generator: Source of the wrong classes.
        targets: Wrong classes of each class; 1 is "flip" and 2 is "flip2" in the literature.

    Returns:
        Rows of probabilities, float64 [K, K].

    Raises:
        ConfigurationError: If `rate` or `targets` is outside its range.
    """
    _check_rate(rate)
    if not 1 <= targets < classes:
        raise ConfigurationError(
            f"targets: expected 1 to {classes - 1} wrong classes, found {targets}. "
            f"A class among {classes} cannot flip to more than the others."
        )
    matrix = torch.eye(classes, dtype=torch.float64) * (1 - rate)
    for label in range(classes):
        # A shift of 1 to K-1 never leads back to the class itself.
        shifts = torch.randperm(classes - 1, generator=generator)[:targets] + 1
        matrix[label, (label + shifts) % classes] = rate / targets
    return matrix


def uniform_matrix(classes: int, rate: float) -> Tensor:
    """Give the transition matrix of uniform noise: T_kl = (1 - rate) 1[k = l] + rate / K.

    A redrawn label may be the right one, so the expected share of wrong labels is
    rate (K - 1) / K.

    Args:
        classes: Number of classes K.
        rate: Probability that a label is redrawn.

    Returns:
        Rows of probabilities, float64 [K, K].

    Raises:
        ConfigurationError: If `rate` is outside 0 to 1.
    """
    _check_rate(rate)
    identity = torch.eye(classes, dtype=torch.float64)
    return (1 - rate) * identity + rate / classes


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


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ConfigurationError(
            f"rate: expected a probability from 0 to 1, found {rate}. Write 40 % as 0.4."
        )
