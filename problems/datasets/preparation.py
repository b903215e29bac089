"""What is done to the inputs of a data set before a network sees them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, listed
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
from problems.datasets.photographs import ColorJitter, RandomResizedCrop
from problems.datasets.sets import DataSet

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The usual constants of photographs, on the scale from 0 to 1."""

CROPS = ("margin", "resized")
"""How images are cropped for training."""


def preparations(
    data: DataSet, *, augment: bool, cutout: int | None = None, crop: str = "margin"
) -> tuple[Transform | None, Transform | None]:
    """How inputs are made ready for training, and for measuring.

    Bytes are photographs: they are normalized and, for training, cropped and flipped. Numbers
    are taken as they are.

    Args:
        data: the set.
        augment: crop and flip, and change colours where `crop` says so.
        cutout: side of the square that is then cut out of natural images; None for none.
        crop: "margin" cuts windows out of images with a mirrored margin of an eighth of their
            width, which is 4 for CIFAR; "resized" cuts out boxes of 8 % to all of the
            area, resizes them to the size of the images and changes colours, as for ImageNet.

    Returns:
        Two transforms; None where nothing is done.

    Raises:
        ConfigurationError: `crop` is unknown.
    """
    if crop not in CROPS:
        raise ConfigurationError(
            f"crop: expected one of {listed(CROPS)}, found {crop!r}. Choose how to crop."
        )
    x = data.train[0]
    if x.dtype != torch.uint8:
        return None, None
    cifar = data.name in ("cifar10", "cifar100")
    measured = cifar_normalization(data.name) if cifar else IMAGENET
    if not augment:
        return measured, measured
    if cifar and crop == "margin":
        return cifar_augmentation(data.name, cutout=cutout), measured
    height, width = x.shape[-2:]
    moved: tuple[Transform, ...] = (RandomCrop(max(1, width // 8)), HorizontalFlip(0.5))
    if crop == "resized":
        moved = (RandomResizedCrop((height, width)), HorizontalFlip(0.5), ColorJitter())
    last = () if cutout is None else (Cutout(cutout),)
    return Pipeline(*moved, measured, *last), measured


def measuring(data: DataSet) -> Callable[[Tensor], Tensor]:
    """What makes stored inputs ready for measuring, where nothing is drawn."""
    prepared = preparations(data, augment=False)[1]
    return lambda x: x if prepared is None else prepared(x, torch.Generator())
