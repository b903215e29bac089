"""The upper loss that all programs with learned weights share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from problems.datasets.sets import Examples


def valid_loss(classifier: nn.Module, valid: Examples) -> Tensor:
    """Mean cross-entropy of the classifier on clean validation examples."""
    x, labels, _ = valid
    return F.cross_entropy(classifier(x), labels)
