"""Which parts prepare the inputs of which data set."""

from __future__ import annotations

import pytest
import torch

from mlo.errors import ConfigurationError
from problems.datasets.augmentation import (
    Cutout,
    HorizontalFlip,
    Pipeline,
    RandomCrop,
    cifar_augmentation,
    cifar_normalization,
)
from problems.datasets.photographs import ColorJitter, RandomResizedCrop
from problems.datasets.preparation import IMAGENET, preparations
from problems.datasets.sets import DataSet


def photographs():
    draw = torch.Generator().manual_seed(1)
    return torch.randint(256, (5, 3, 24, 32), generator=draw).to(torch.uint8)


@pytest.mark.parametrize(
    ("name", "normalize"),
    [("imagenet", IMAGENET), ("cifar10", cifar_normalization("cifar10"))],
)
def test_photographs_are_prepared_as_for_imagenet_where_that_is_asked_for(name, normalize):
    x = photographs()
    data = DataSet(name, "", "", (x, torch.arange(5)), None, 5)
    trained, measured = preparations(data, augment=True, cutout=6, crop="resized")
    parts = (RandomResizedCrop((24, 32)), HorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.2))
    assert trained == Pipeline(*parts, normalize, Cutout(6))
    assert measured == normalize
    found = trained(x, torch.Generator().manual_seed(0))
    assert (found.shape, found.dtype) == (x.shape, torch.float32)
    assert preparations(data, augment=False, crop="resized") == (normalize, normalize)
    margin, _ = preparations(data, augment=True, cutout=6)
    usual = Pipeline(RandomCrop(4), HorizontalFlip(), normalize, Cutout(6))
    assert margin == (usual if name == "imagenet" else cifar_augmentation(name, cutout=6))


def test_a_crop_that_is_not_known_is_refused():
    data = DataSet("imagenet", "", "", (photographs(), torch.arange(5)), None, 5)
    with pytest.raises(
        ConfigurationError, match=r"crop: expected one of 'margin', 'resized'.*'no'"
    ):
        preparations(data, augment=True, crop="no")
