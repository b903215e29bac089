"""What is done to the inputs of a data set before a network sees them."""

from __future__ import annotations

import torch

from problems.datasets.augmentation import (
    Cutout,
    HorizontalFlip,
    Normalize,
    Pipeline,
    RandomCrop,
    Transform,
    cifar_augmentation,
    cifar_normalization,
)
from problems.datasets.sets import DataSet

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The usual constants of photographs, on the scale from 0 to 1."""


def preparations(
    data: DataSet, *, augment: bool, cutout: int | None = None
) -> tuple[Transform | None, Transform | None]:
    """How inputs are made ready for training, and for measuring.

    Bytes are photographs: they are normalized and, for training, cropped and flipped. Numbers
    are taken as they are.

    Args:
        data: the set.
        augment: crop and flip.
        cutout: side of the square that is then cut out of natural images; None for none.

    Returns:
        Two transforms; None where nothing is done.
    """
    x = data.train[0]
    if x.dtype != torch.uint8:
        return None, None
    if data.name in ("cifar10", "cifar100"):
        measured: Transform = cifar_normalization(data.name)
        trained: Transform = cifar_augmentation(data.name, cutout=cutout)
    else:
        measured = IMAGENET
        last = () if cutout is None else (Cutout(cutout),)
        crop = RandomCrop(max(1, x.shape[-1] // 8))
        trained = Pipeline(crop, HorizontalFlip(0.5), IMAGENET, *last)
    return (trained if augment else measured), measured
