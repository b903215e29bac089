r"""The weight of a training example in Learning From Mistakes, as pure functions of tensors.

A training example i counts more the more it resembles validation examples j of its own class on
which the first learner errs:

    a_i = sigmoid( sum_j r_j x_ij z_ij u_j )

Legend: n training and m validation examples of one batch, F features, K classes.

Source: L. Zhang, B. Garg, P. Sridhara, R. Hosseini and P. Xie, "Learning From Mistakes: A
Multilevel Optimization Framework", IEEE Transactions on Artificial Intelligence 6(6), 2025.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlo.errors import ConfigurationError, DataError


def visual_similarity(
    train_features: Tensor,
    valid_features: Tensor,
    *,
    temperature: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """Compare every training example with every validation example: x_ij.

    x_ij = exp(e_i . e_j / T) / sum_k exp(e_i . e_k / T), the sum over the validation examples.
    The paper's formula is T = 1 without normalization. Raw products of features grow with their
    length and then leave one neighbour only; the cosine (`normalize`) with its own T does not.

    Args:
        train_features: Features e_i, [n, F].
        valid_features: Features e_j, [m, F].
        temperature: T, above 0; a small one compares with the nearest neighbours only.
        normalize: Scale every feature vector to length 1 first.

    Returns:
        x, [n, m]; each row sums to 1.

    Raises:
        DataError: If the two sets of features do not match.
        ConfigurationError: If `temperature` is not positive.
    """
    if train_features.ndim != 2 or train_features.shape[1:] != valid_features.shape[1:]:
        raise DataError(
            "train_features, valid_features: expected [n, F] and [m, F] with one F, found "
            f"{list(train_features.shape)} and {list(valid_features.shape)}. "
            "Encode both batches with one encoder that returns a vector per example."
        )
    if temperature <= 0:
        raise ConfigurationError(
            f"temperature: expected a positive number, found {temperature}. "
            "Use 1 for the plain product, about 0.1 for the cosine."
        )
    if normalize:
        train_features = F.normalize(train_features, dim=1)
        valid_features = F.normalize(valid_features, dim=1)
    return torch.softmax(train_features @ valid_features.T / temperature, dim=1)


def label_similarity(train_labels: Tensor, valid_labels: Tensor) -> Tensor:
    """Mark the pairs of one class: z_ij = 1[t_i = t_j].

    Args:
        train_labels: Classes t_i as given, possibly wrong, [n].
        valid_labels: Classes t_j, [m].

    Returns:
        z, boolean [n, m].
    """
    return train_labels.unsqueeze(1) == valid_labels.unsqueeze(0)


def mistakes(logits: Tensor, labels: Tensor) -> Tensor:
    """Measure the first learner's mistake on each validation example: its cross-entropy u_j.

    Args:
        logits: Predictions on the validation batch, [m, K].
        labels: Classes t_j, [m].

    Returns:
        u >= 0, [m].
    """
    return F.cross_entropy(logits, labels, reduction="none")


def example_weights(
    coefficients: Tensor, x: Tensor, z: Tensor, u: Tensor, *, offset: float = 0.0
) -> Tensor:
    """Combine the parts into a_i = sigmoid( c + sum_j r_j x_ij z_ij u_j ).

    Without an offset c the weight is exactly 0.5 where no validation example of the batch has the
    label of i, and at least 0.5 as long as all r are non-negative.

    Args:
        coefficients: Coefficients r_j, [m].
        x: Visual similarity, [n, m].
        z: Label similarity, [n, m].
        u: Mistakes, [m].
        offset: c; 0 in the paper.

    Returns:
        Weights a between 0 and 1, [n].

    Raises:
        DataError: If the shapes do not fit together.
    """
    if x.ndim != 2 or z.shape != x.shape or not coefficients.shape == u.shape == x.shape[1:]:
        raise DataError(
            "coefficients, x, z, u: expected shapes [m], [n, m], [n, m] and [m], found "
            f"{[list(part.shape) for part in (coefficients, x, z, u)]}. "
            "Take all of them from one training batch and one validation batch."
        )
    return torch.sigmoid((x * z) @ (coefficients * u) + offset)
