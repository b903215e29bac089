"""One problem, no levels: training with a loss that is fixed beforehand.

    classifier   min_w (1/n) sum_i c(d_i) l(w; d_i)

with c = 1 (plain), (1 - p_i)^gamma (focal) or a weight of the class (class-balanced). Fine-tuning
on the validation set is `plain_problems` twice: on `train`, then on validation data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.reweighting.losses import class_balanced_weights, focal_loss
from problems.training import Training


def train_loss(classifier: nn.Module, train: Examples) -> Tensor:
    """Mean cross-entropy."""
    x, labels, _ = train
    return F.cross_entropy(classifier(x), labels)


def plain_problems(network: nn.Module, training: Training, *, ticks: int) -> list[mlo.Problem]:
    """Declare plain training.

    Args:
        network: the classifier.
        training: its optimizer.
        ticks: length of the run.
    """
    return [training.problem("classifier", network, train_loss, ticks=ticks)]


def focal_problems(
    network: nn.Module, training: Training, *, ticks: int, gamma: float
) -> list[mlo.Problem]:
    """Declare training with the focal loss of exponent `gamma`."""

    def loss(classifier: nn.Module, train: Examples) -> Tensor:
        x, labels, _ = train
        return focal_loss(classifier(x), labels, gamma)

    return [training.problem("classifier", network, loss, ticks=ticks)]


def class_balanced_problems(
    network: nn.Module, training: Training, *, ticks: int, counts: Sequence[int], beta: float
) -> list[mlo.Problem]:
    """Declare training with classes weighted by their effective numbers.

    Args:
        network: the classifier.
        training: its optimizer.
        ticks: length of the run.
        counts: examples of each class in the training set.
        beta: of `class_balanced_weights`.
    """
    weights = class_balanced_weights(counts, beta)
    there = {weights.device: weights}  # copied once to the device of the batches

    def loss(classifier: nn.Module, train: Examples) -> Tensor:
        x, labels, _ = train
        losses = F.cross_entropy(classifier(x), labels, reduction="none")
        if x.device not in there:
            there[x.device] = weights.to(x.device)
        return (there[x.device][labels] * losses).mean()

    return [training.problem("classifier", network, loss, ticks=ticks)]
