"""The data of one repetition: split, thinned out and corrupted as configured."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, DataError
from problems.datasets import (
    flip_noise,
    load_arrays,
    load_digits,
    long_tail,
    stratified_split,
    uniform_noise,
)
from problems.lfm.config import ReweightingConfig
from problems.models import SMALLEST

_PARTS = ("split", "imbalance", "noise", "train", "valid", "classifier", "encoder")

Labelled = tuple[Tensor, Tensor]
"""Images [N, C, H, W] and labels [N]."""


class Task(NamedTuple):
    """Three disjoint sets of images; only the training labels can be wrong.

    Attributes:
        train: what the networks are trained on.
        corrupted: mask of the training examples with a wrong label, [N].
        valid: the small clean set on which the validator is judged.
        test: measured along the way and at the end; nothing is selected by it.
        classes: number K of classes.
    """

    train: Labelled
    corrupted: Tensor
    valid: Labelled
    test: Labelled
    classes: int


def make_task(config: ReweightingConfig, seed: int) -> Task:
    """Draw the data of one seed; plain training and Learning From Mistakes get the same."""
    x, labels = load_digits() if config.data is None else _own(config.data)
    classes = int(labels.max()) + 1
    split = stratified_split(
        labels,
        validation_per_class=config.validation_per_class,
        test_fraction=config.test_fraction,
        generator=_generator(seed, "split"),
    )
    train = split.train
    if config.imbalance is not None:
        train = train[_thinned(config.imbalance, labels[train], seed)]
    given, corrupted = _corrupt(config, labels[train], classes, seed)
    data = Task(
        train=(x[train], given),
        corrupted=corrupted,
        valid=(x[split.validation], labels[split.validation]),
        test=(x[split.test], labels[split.test]),
        classes=classes,
    )
    _check_batch("train_batch", config.train_batch, len(data.train[1]), seed)
    _check_batch("valid_batch", config.valid_batch, len(data.valid[1]), seed)
    return data if config.device == "cpu" else _moved(data, config.device)


def part_seed(seed: int, part: str) -> int:
    """Seed of one part of the experiment; parts do not share random numbers."""
    return 1000 * seed + _PARTS.index(part)


def _own(path: str) -> Labelled:
    try:
        x, labels = load_arrays(path)
        if min(x.shape[2:]) < SMALLEST:
            raise DataError(
                f"{path!r}: expected images of at least {SMALLEST} by {SMALLEST} pixels, which "
                f"the networks need, found {x.shape[2]} by {x.shape[3]}; enlarge them"
            )
    except DataError as error:
        raise DataError(f"data: {error}") from error
    return x, labels


def _thinned(imbalance: float, labels: Tensor, seed: int) -> Tensor:
    try:
        return long_tail(labels, imbalance, generator=_generator(seed, "imbalance")).kept
    except ConfigurationError as error:
        raise ConfigurationError(
            f"imbalance: {imbalance:g} does not suit these data: {error}"
        ) from error


def _check_batch(setting: str, size: int, examples: int, seed: int) -> None:
    if size > examples:
        raise ConfigurationError(
            f"{setting}: expected at most {examples}, the examples that seed {seed} leaves for it, "
            f"got {size}; choose a smaller batch"
        )


def _corrupt(
    config: ReweightingConfig, labels: Tensor, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    if not config.noisy:
        return labels, torch.zeros_like(labels, dtype=torch.bool)
    noise = flip_noise if config.noise == "flip" else uniform_noise
    return noise(labels, config.rate, classes=classes, generator=_generator(seed, "noise"))


def _moved(task: Task, device: str) -> Task:
    def pair(part: Labelled) -> Labelled:
        return part[0].to(device), part[1].to(device)

    return task._replace(
        train=pair(task.train),
        corrupted=task.corrupted.to(device),
        valid=pair(task.valid),
        test=pair(task.test),
    )


def _generator(seed: int, part: str) -> torch.Generator:
    return torch.Generator().manual_seed(part_seed(seed, part))
