"""Small resident streams with every kind of augmentation, and what tests compare."""

from __future__ import annotations

import torch

from mlo.plain import differences
from problems.datasets.augmentation import Cutout, HorizontalFlip, Normalize, Pipeline, RandomCrop
from problems.datasets.resident import ResidentStream

AUGMENTATION = Pipeline(
    RandomCrop(2), HorizontalFlip(), Normalize((0.4, 0.5), (0.2, 0.3)), Cutout(2)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(count=13, seed=1):
    draw = seeded(seed)
    x = torch.randint(256, (count, 2, 4, 5), generator=draw).to(torch.uint8)
    return x, torch.randint(3, (count,), generator=draw)


def stream(count=13, *, batch_size=4, seed=5, transform=AUGMENTATION, drop_last=True, data=None):
    return ResidentStream(
        *(examples(count) if data is None else data),
        batch_size=batch_size,
        generator=seeded(seed),
        transform=transform,
        drop_last=drop_last,
    )


def same(found, expected):
    return not [*differences(found, expected)]
