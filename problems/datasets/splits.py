"""Seeded, stratified and disjoint parts of one labelled data set."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, DataError


class Split(NamedTuple):
    """Three disjoint index sets (int64, ascending) whose union is the whole data set.

    Attributes:
        train: What is left after the other two, [n]; nearly keeps the class proportions.
        validation: The same number of examples of every class, [K * per class].
        test: The same share of every class, [t].
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def stratified_split(
    labels: Tensor,
    *,
    validation_per_class: int,
    test_fraction: float,
    generator: torch.Generator,
) -> Split:
    """Split class by class: a share for test, a fixed number for validation, the rest to train.

    The test part is cut first. With equal generators it is therefore the same whatever the size
    of the validation set, and results with different validation sets stay comparable.

    Args:
        labels: Class of every example, [N].
        validation_per_class: Validation examples of each class; the set is balanced.
        test_fraction: Share of each class that goes to test, rounded to whole examples.
        generator: Source of the random order.

    Returns:
        The three index sets.

    Raises:
        ConfigurationError: If a size is outside its range.
        DataError: If a class is too small to give every part at least one example.
    """
    _check_sizes(labels, validation_per_class, test_fraction)
    parts: list[tuple[Tensor, ...]] = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        tested = round(test_fraction * len(members))
        trained = len(members) - tested - validation_per_class
        if min(tested, trained) < 1:
            raise DataError(
                f"labels: class {label} has {len(members)} examples, of which {tested} go to test "
                f"and {validation_per_class} to validation, and each part needs at least one. "
                "Change validation_per_class or test_fraction, or leave the class out."
            )
        order = members[torch.randperm(len(members), generator=generator)]
        parts.append(order.split([trained, validation_per_class, tested]))
    train, validation, test = (torch.cat(part).sort().values for part in zip(*parts, strict=True))
    return Split(train, validation, test)


class MetaSplit(NamedTuple):
    """Two disjoint index sets (int64, ascending) whose union is the whole data set.

    Attributes:
        meta: The same number of examples of every class, [K * per class].
        rest: All others, [n].
    """

    meta: Tensor
    rest: Tensor


def balanced_split(labels: Tensor, per_class: int, generator: torch.Generator) -> MetaSplit:
    """Set the same number of examples of every class aside as a meta set.

    Split first and corrupt or thin out the rest afterwards: the meta set stays clean.

    Args:
        labels: Classes 0 to K - 1, int64 [N].
        per_class: Examples of each class that go to the meta set.
        generator: Source of the choice.

    Returns:
        The positions in the meta set and those in the rest.

    Raises:
        ConfigurationError: If `per_class` is not positive, or a class has not more examples than
            that, so that the meta set could not be filled or the class would be left empty.
        DataError: If `labels` are no classes.
    """
    if labels.ndim != 1 or not len(labels) or labels.is_floating_point() or int(labels.min()) < 0:
        raise DataError(
            "labels: expected one class from 0 on for each example, shape [N], found "
            f"{labels.dtype} {list(labels.shape)}. Pass class indices, not one-hot rows."
        )
    if per_class < 1:
        raise ConfigurationError(
            f"per_class: expected at least 1, found {per_class}. "
            "Give the upper problem some clean examples of each class."
        )
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label, size in enumerate(torch.bincount(labels).tolist()):
        if size <= per_class:
            raise ConfigurationError(
                f"per_class: expected fewer than the {size} examples of class {label}, "
                f"found {per_class}. Take a smaller meta set, so that the class keeps an example."
            )
        members = (labels == label).nonzero().squeeze(1)
        chosen[members[torch.randperm(size, generator=generator)[:per_class]]] = True
    return MetaSplit(chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1))


def portion_split(
    labels: Tensor, portion: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a set in two, class by class, such as the halves that architecture search works on.

    Args:
        labels: Class of every example, [N].
        portion: Share of each class in the first part, rounded to whole examples.
        generator: Source of the choice.

    Returns:
        Two index sets (int64, ascending).

    Raises:
        ConfigurationError: If the share is not between 0 and 1.
        DataError: If a class is too small to give each part an example.
    """
    if not 0 < portion < 1:
        raise ConfigurationError(
            f"portion: expected a number between 0 and 1, both excluded, found {portion}. "
            "Name the share of the first part, such as 0.5."
        )
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        size = round(portion * len(members))
        if not 0 < size < len(members):
            raise DataError(
                f"labels: class {label} has {len(members)} examples, of which {size} are to go to "
                "the first of two parts, and each part needs at least one. Change the share, or "
                "leave the class out."
            )
        chosen[members[torch.randperm(len(members), generator=generator)[:size]]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def _check_sizes(labels: Tensor, validation_per_class: int, test_fraction: float) -> None:
    if labels.ndim != 1 or not len(labels):
        raise DataError(
            f"labels: expected one class per example, shape [N], found {list(labels.shape)}. "
            "Pass class indices, not one-hot rows."
        )
    if validation_per_class < 1:
        raise ConfigurationError(
            f"validation_per_class: expected at least 1, found {validation_per_class}. "
            "Give the upper problem some clean examples of each class."
        )
    if not 0 < test_fraction < 1:
        raise ConfigurationError(
            f"test_fraction: expected a number between 0 and 1, both excluded, "
            f"found {test_fraction}. Name the share of each class, such as 0.25."
        )
