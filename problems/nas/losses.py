"""The loss of a network that is trained from scratch, with an auxiliary head or without."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlo.errors import ConfigurationError


def evaluation_loss(
    outputs: tuple[Tensor, Tensor | None],
    labels: Tensor,
    *,
    auxiliary_weight: float,
    label_smoothing: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(z, y) + λ CE(z', y), and its parts.

    CE is the mean over the batch of −Σ_k q_k log softmax(z)_k with q = (1 − s) e_y + s / K: the
    cross-entropy of smoothed labels (C. Szegedy et al., CVPR 2016, Section 7). Without auxiliary
    logits z' their term is left out. H. Liu et al. (DARTS, ICLR 2019, Section A.2) take λ = 0.4,
    and s = 0.1 on ImageNet, for both terms.

    Args:
        outputs: logits z [n, K], and the auxiliary ones z' [n, K] or None.
        labels: classes y [n].
        auxiliary_weight: λ, at least 0.
        label_smoothing: s in [0, 1).

    Returns:
        The loss, and the metrics "cross_entropy" (the first term), "auxiliary" (the second one
        without its weight, where there is one) and "accuracy", as tensors without a graph.

    Raises:
        ConfigurationError: A number is not in its range.
    """
    check_evaluation(auxiliary_weight=auxiliary_weight, label_smoothing=label_smoothing)
    logits, auxiliary = outputs
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    right = logits.detach().argmax(1) == labels
    metrics = {"cross_entropy": loss.detach(), "accuracy": right.to(loss.dtype).mean()}
    if auxiliary is not None:
        second = F.cross_entropy(auxiliary, labels, label_smoothing=label_smoothing)
        metrics["auxiliary"] = second.detach()
        loss = loss + auxiliary_weight * second
    return loss, metrics


def check_evaluation(*, auxiliary_weight: float, label_smoothing: float) -> None:
    """Refuse settings of the loss that are not in their range, by a ConfigurationError."""
    if not auxiliary_weight >= 0.0:
        raise ConfigurationError(
            f"auxiliary_weight: expected at least 0, found {auxiliary_weight}. 0.4 is usual, and "
            "0 leaves the auxiliary head untrained."
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigurationError(
            f"label_smoothing: expected a share in [0, 1), found {label_smoothing}. 0 is plain "
            "cross-entropy, and at 1 labels say nothing."
        )
