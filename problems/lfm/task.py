"""The data of one repetition: digits, or images of one's own."""

from __future__ import annotations

import pathlib

from mlo.errors import DataError
from problems.datasets import DataSet, fingerprint, load_arrays, load_data_set
from problems.datasets.task import Task
from problems.lfm.config import ReweightingConfig
from problems.models import SMALLEST
from problems.naming import blaming


def make_task(config: ReweightingConfig, seed: int) -> Task:
    """Draw the data of one seed; plain training and Learning From Mistakes get the same."""
    data = load_data_set("digits") if config.data is None else _own(config.data)
    return config.task(data, seed)


def _own(path: str) -> DataSet:
    with blaming("data"):
        train = load_arrays(path)
        height, width = train[0].shape[2:]
        if min(height, width) < SMALLEST:
            raise DataError(
                f"{path!r}: expected images of at least {SMALLEST} by {SMALLEST} pixels, which "
                f"the networks need, found {height} by {width}; enlarge them"
            )
    classes = int(train[1].max()) + 1
    return DataSet("arrays", pathlib.Path(path).name, fingerprint(*train), train, None, classes)
