"""Transition matrices of label noise: row k holds the probabilities of the labels of class k.

The protocols are those of J. Shu et al., "Meta-Weight-Net", NeurIPS 2019, which Learning From
Mistakes follows; the hierarchical one is that of D. Hendrycks et al., "Using Trusted Data to
Train Deep Networks on Labels Corrupted by Severe Noise", NeurIPS 2018 (GLC).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, nearest

KINDS = ("none", "uniform", "flip", "flip2", "hierarchical")
"""The kinds of label noise that `transition_matrix` knows."""


def transition_matrix(
    kind: str,
    classes: int,
    rate: float,
    *,
    generator: torch.Generator,
    superclasses: Tensor | None = None,
) -> Tensor:
    """Make the transition matrix of a named kind of noise; recorded, it lets a run be judged.

    Args:
        kind: One of `KINDS`: ``"none"`` is the identity, ``"uniform"`` is `uniform_matrix`,
            ``"flip"`` and ``"flip2"`` are `flip_matrix` with one and two wrong classes, and
            ``"hierarchical"`` is `hierarchical_matrix`.
        classes: Number of classes K.
        rate: The rate of that kind; 0 for ``"none"``.
        generator: Source of the wrong classes of flip and flip2; the others draw nothing.
        superclasses: Superclass of each class, [K]; needed by ``"hierarchical"`` alone.

    Returns:
        Rows of probabilities, float64 [K, K].

    Raises:
        ConfigurationError: If there is no such kind, a rate is outside its range or given where
            nothing is corrupted, or superclasses are needed and absent or of another number.
    """
    _check_rate(rate)
    if kind == "none":
        if rate != 0:
            raise ConfigurationError(
                f"rate: expected 0 for the kind 'none', found {rate}. Name a kind of noise."
            )
        return torch.eye(classes, dtype=torch.float64)
    if kind == "uniform":
        return uniform_matrix(classes, rate)
    if kind in ("flip", "flip2"):
        return flip_matrix(classes, rate, generator=generator, targets=1 + (kind == "flip2"))
    if kind == "hierarchical":
        return hierarchical_matrix(_checked_superclasses(superclasses, classes), rate)
    raise ConfigurationError(
        f"kind: expected one of {', '.join(KINDS)}, found {kind!r}{nearest(kind, KINDS)}."
    )


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


def hierarchical_matrix(superclasses: Tensor, rate: float) -> Tensor:
    """Give the transition matrix of noise within superclasses.

    T_kk = 1 - rate, and T_kl = rate / (s_k - 1) for the other classes l of k's superclass, which
    has s_k classes. A label that becomes wrong stays within its superclass.

    Args:
        superclasses: Superclass of each class, int64 [K].
        rate: Probability that a label becomes wrong.

    Returns:
        Rows of probabilities, float64 [K, K].

    Raises:
        ConfigurationError: If `rate` is outside 0 to 1, if `superclasses` is not of the form
            [K], or if a class is alone in its superclass while `rate` is not 0.
    """
    _check_rate(rate)
    if superclasses.ndim != 1 or not len(superclasses):
        raise ConfigurationError(
            "superclasses: expected the superclass of each class, shape [K], found "
            f"{list(superclasses.shape)}. Pass those of the data set."
        )
    related = superclasses.unsqueeze(0) == superclasses.unsqueeze(1)
    others = related.double() - torch.eye(len(related), dtype=torch.float64)
    sizes = others.sum(1, keepdim=True)
    alone = (sizes.squeeze(1) == 0).nonzero().flatten().tolist()
    if alone and rate > 0:
        raise ConfigurationError(
            "superclasses: expected at least two classes in each, found class "
            f"{alone[0]} alone in superclass {int(superclasses[alone[0]])}. "
            "It has no class to become; merge its superclass with another."
        )
    identity = torch.eye(len(related), dtype=torch.float64)
    return (1 - rate) * identity + rate * others / sizes.clamp(min=1)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ConfigurationError(
            f"rate: expected a probability from 0 to 1, found {rate}. Write 40 % as 0.4."
        )


def _checked_superclasses(superclasses: Tensor | None, classes: int) -> Tensor:
    if superclasses is None:
        raise ConfigurationError(
            "superclasses: expected the superclass of each class for the kind 'hierarchical', "
            "found none. Choose a data set that has them, such as cifar100, or another kind."
        )
    if len(superclasses) != classes:
        raise ConfigurationError(
            f"superclasses: expected one for each of {classes} classes, found "
            f"{len(superclasses)}. Pass those of the same data set."
        )
    return superclasses
