"""The data of one repetition of an experiment: split, thinned out and corrupted, by its seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, MloError
from problems.datasets.corruption import corrupt
from problems.datasets.imbalance import long_tail
from problems.datasets.sets import DataSet, Labelled
from problems.datasets.splits import balanced_split, stratified_split
from problems.datasets.transitions import transition_matrix
from problems.naming import blaming

_PARTS = (
    *("split", "imbalance", "noise", "train", "valid", "classifier", "encoder"),
    *("upper", "second", "held", "network", "retrain", "genotype"),
)


class Task(NamedTuple):
    """Three disjoint sets of examples; only the training labels can be wrong.

    Attributes:
        train: what the networks are trained on.
        corrupted: mask of the training examples with a wrong label, [N].
        valid: the small clean balanced set on which upper problems are judged ("meta set").
        test: measured along the way and at the end; nothing is selected by it.
        classes: number K of classes.
        positions: places of the training examples in the data set, [N].
        transition: probabilities with which a label k became l, [K, K].
    """

    train: Labelled
    corrupted: Tensor
    valid: Labelled
    test: Labelled
    classes: int
    positions: Tensor
    transition: Tensor

    @property
    def counts(self) -> list[int]:
        """Training examples of each class, by their given labels."""
        return torch.bincount(self.train[1], minlength=self.classes).tolist()

    def to(self, device: str) -> Task:
        """The same on a device."""

        def pair(part: Labelled) -> Labelled:
            return part[0].to(device), part[1].to(device)

        return self._replace(
            train=pair(self.train),
            corrupted=self.corrupted.to(device),
            valid=pair(self.valid),
            test=pair(self.test),
        )


def draw_task(
    data: DataSet,
    seed: int,
    *,
    noise: str,
    rate: float,
    imbalance: float | None,
    validation_per_class: int,
    test_fraction: float,
    held_per_class: int | None = None,
) -> Task:
    """Draw the data of one seed; everybody who is compared gets the same.

    The clean validation set is cut first, then what remains is thinned out, then its labels are
    corrupted, so no validation example is in the training set, whatever the seed.

    Args:
        data: the whole set.
        seed: decides all draws; each part has a random state of its own.
        noise: kind of `transition_matrix`.
        rate: its rate.
        imbalance: factor of `long_tail`; None leaves the training set as it is.
        validation_per_class: clean validation examples of each class.
        test_fraction: share of each class kept for test, where the set has no test part.
        held_per_class: hold so many further clean examples of each class out of training, and
            let them stand in the place of the test set, which is then not looked at. It is for
            choosing settings.

    Raises:
        ConfigurationError: a set would be larger than a class, or a class would be left empty.
        DataError: a class is too small for the parts.
    """
    x, labels = data.train
    valid, rest, tested = _split(data, seed, validation_per_class, test_fraction)
    if held_per_class is not None:
        held, rest = _held(labels, rest, held_per_class, seed)
        tested = x[held], labels[held]
    train = rest if imbalance is None else rest[_thinned(imbalance, labels[rest], seed)]
    generator = part_generator(seed, "noise")
    with blaming("noise"):
        matrix = transition_matrix(
            noise,
            data.classes,
            0.0 if noise == "none" else rate,
            generator=generator,
            superclasses=data.superclasses,
        )
    given, corrupted = labels[train], torch.zeros(len(train), dtype=torch.bool)
    if noise != "none":
        given, corrupted = corrupt(given, matrix, generator=generator)
    return Task(
        train=(x[train], given),
        corrupted=corrupted,
        valid=(x[valid], labels[valid]),
        test=tested,
        classes=data.classes,
        positions=train,
        transition=matrix,
    )


def part_seed(seed: int, part: str) -> int:
    """Seed of one part of an experiment; parts do not share random numbers."""
    return 1000 * seed + _PARTS.index(part)


@contextlib.contextmanager
def drawn(seed: int, part: str) -> Iterator[None]:
    """Draw on the random state of one part inside; the global ones are afterwards as before."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(part_seed(seed, part))
        yield


def part_generator(seed: int, part: str) -> torch.Generator:
    """A generator for one part of an experiment."""
    return torch.Generator().manual_seed(part_seed(seed, part))


def check_batch(setting: str, size: int, examples: int, seed: int) -> None:
    """Refuse a batch that is larger than the set it is drawn from.

    Raises:
        ConfigurationError: it is.
    """
    if size > examples:
        raise ConfigurationError(
            f"{setting}: expected at most {examples}, the examples that seed {seed} leaves for it, "
            f"got {size}; choose a smaller batch"
        )


def _split(
    data: DataSet, seed: int, per_class: int, test_fraction: float
) -> tuple[Tensor, Tensor, Labelled]:
    """Positions of validation and other examples, and the test set."""
    x, labels = data.train
    generator = part_generator(seed, "split")
    if data.test is not None:
        with blaming("validation_per_class"):
            valid, rest = balanced_split(labels, per_class, generator=generator)
        return valid, rest, data.test
    split = stratified_split(
        labels,
        validation_per_class=per_class,
        test_fraction=test_fraction,
        generator=generator,
    )
    return split.validation, split.train, (x[split.test], labels[split.test])


def _held(labels: Tensor, rest: Tensor, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = part_generator(seed, "held")
    with blaming("held_per_class"):
        held, others = balanced_split(labels[rest], per_class, generator=generator)
    return rest[held], rest[others]


def _thinned(imbalance: float, labels: Tensor, seed: int) -> Tensor:
    try:
        return long_tail(labels, imbalance, generator=part_generator(seed, "imbalance")).kept
    except MloError as error:
        raise ConfigurationError(
            f"imbalance: {imbalance:g} does not suit these data: {error}"
        ) from error
