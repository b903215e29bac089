"""What classifiers are judged by: predictions, accuracy, and the confusion of classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mlo.modes import preserved_modes

CHUNK = 2048
"""Examples that a network is given at once."""

Prepare = Callable[[Tensor], Tensor]
"""Makes stored inputs ready for a network, such as bytes to normalized numbers."""


@torch.no_grad()
def predict(
    network: nn.Module, x: Tensor, prepare: Prepare | None = None, *given: object
) -> Tensor:
    """Logits in evaluation mode, [N, K]; the mode of the network is restored.

    Args:
        network: from [n, ...] to [n, K].
        x: inputs, [N, ...].
        prepare: applied to inputs first.
        given: what else the network takes, such as mixing weights.
    """
    with preserved_modes([network]):
        network.eval()
        parts = [network(prepare(part) if prepare else part, *given) for part in x.split(CHUNK)]
    return torch.cat(parts)


def accuracy(
    network: nn.Module, x: Tensor, labels: Tensor, prepare: Prepare | None = None, *given: object
) -> float:
    """Share of right predictions in evaluation mode, from 0 to 1.

    Args:
        network: Classifier from [n, ...] to logits [n, K].
        x: Inputs, [N, ...].
        labels: Classes, [N].
        prepare: Applied to inputs first.
        given: What else the network takes.
    """
    return (predict(network, x, prepare, *given).argmax(1) == labels).double().mean().item()


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Count how often class k was taken for class l: int64 [K, K], right classes in rows.

    Args:
        logits: predictions, [N, K].
        labels: right classes, [N].
    """
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def class_accuracy(counts: Tensor) -> Tensor:
    """Share of right predictions of each class of a confusion matrix; NaN for classes not there."""
    return counts.diagonal().double() / counts.sum(1)
