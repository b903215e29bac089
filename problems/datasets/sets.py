"""What every data set is once it is loaded: labelled tensors with a name and a fingerprint."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Labelled = tuple[Tensor, Tensor]
"""Inputs [N, ...] and labels, int64 [N]."""


class DataSet(NamedTuple):
    """A data set in memory.

    Attributes:
        name: what settings call it, such as ``"cifar10"``.
        source: what tables call it. It says which copy was read: ``"CIFAR-10"`` is the official
            one, and every other copy has a note in brackets.
        fingerprint: SHA-256 of the content, 64 hexadecimal digits; recorded with runs.
        train: the training part.
        test: the official test part; None where there is none, and a task cuts its own.
        classes: the number K of classes.
        superclasses: the superclass of each class, int64 [K], where there are such.
    """

    name: str
    source: str
    fingerprint: str
    train: Labelled
    test: Labelled | None
    classes: int
    superclasses: Tensor | None = None


Examples = tuple[Tensor, Tensor, Tensor]
"""A batch: inputs [n, ...], labels [n], and positions in the data set [n]."""
