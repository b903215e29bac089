"""Losses of a classification batch, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlo.errors import ConfigurationError


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy l_i of every example, [n].

    Args:
        logits: predictions, [n, K].
        labels: classes, [n].
    """
    return F.cross_entropy(logits, labels, reduction="none")


def weighted_mean(weights: Tensor, losses: Tensor, *, unit_mean: bool = False) -> Tensor:
    """The loss (1/n) sum_i w_i l_i.

    Args:
        weights: w_i, [n].
        losses: l_i, [n].
        unit_mean: divide the weights by their mean over the batch first, so that they change what
            counts and not how fast is learned.
    """
    return (scaled(weights, unit_mean=unit_mean) * losses).mean()


def scaled(weights: Tensor, *, unit_mean: bool) -> Tensor:
    """Weights that count together, divided by their mean where that is wanted."""
    return weights / weights.mean() if unit_mean else weights


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Mean of (1 - p_i)^gamma l_i, p_i the predicted probability of the right class.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4.

    Args:
        logits: predictions, [n, K].
        labels: classes, [n].
        gamma: focusing exponent; 0 is cross-entropy.

    Raises:
        ConfigurationError: `gamma` is negative.
    """
    if not gamma >= 0:
        raise ConfigurationError(
            f"gamma: expected a number of at least 0, found {gamma}. 0 is plain cross-entropy."
        )
    losses = example_losses(logits, labels)
    missed = -torch.expm1(-losses)  # 1 - p without cancellation
    # At l = 0 the slope of a power below 1 is infinite, but that of the product is 0.
    factor = torch.where(missed > 0, missed, torch.ones_like(missed)) ** gamma
    return (factor * losses).mean()


def class_balanced_weights(counts: Sequence[int], beta: float) -> Tensor:
    """Weight of each class by its effective number of examples, scaled to mean 1, [K].

    w_k is proportional to (1 - beta) / (1 - beta^n_k).

    Source: Y. Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
    eq. 2 and section 4 (the weights are normalized to sum to K).

    Args:
        counts: examples n_k of each class in the training set.
        beta: 0 weighs all classes alike; towards 1 a class weighs 1 / n_k.

    Raises:
        ConfigurationError: `beta` is not in 0 to 1, 1 excluded, or a class is empty.
    """
    if not 0 <= beta < 1:
        raise ConfigurationError(
            f"beta: expected a number of at least 0 and below 1, found {beta}. 0.9999 is usual."
        )
    if not len(counts) or min(counts) < 1:
        raise ConfigurationError(
            f"counts: expected an example of every class, found {list(counts).count(0)} "
            f"empty classes of {len(counts)}. "
            "An empty class has no effective number; leave it out or raise the imbalance factor."
        )
    effective = torch.tensor(
        [-torch.expm1(n * torch.log(torch.tensor(beta, dtype=torch.float64))) for n in counts]
    )
    weights = 1 / effective
    return (weights / weights.mean()).to(torch.get_default_dtype())
