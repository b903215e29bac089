"""MNIST-1D: forty numbers an example, made by the package `mnist1d` and not downloaded.

Source: S. Greydanus and D. Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024,
arXiv 2011.14439.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mlo.errors import DataError
from mlo.randomness import preserved
from problems.datasets.sets import Labelled


def load_mnist1d() -> tuple[Labelled, Labelled]:
    """Make the standard set: 4,000 examples for training and 1,000 for testing, in 10 classes.

    The package seeds Python's and NumPy's global generators; their states, and PyTorch's, are
    left as they were. Making it takes about a second, and later calls copy what was made.

    Returns:
        The training and the test part: signals as float32 [N, 1, 40] and labels as int64 [N].

    Raises:
        DataError: the package, or one that it needs, is not installed.
    """
    x, y, x_test, y_test = (part.clone() for part in _made())
    return (x, y), (x_test, y_test)


@functools.cache
def _made() -> tuple[Tensor, ...]:
    with preserved():
        try:
            from mnist1d import data
        except ImportError as error:
            raise DataError(
                "load_mnist1d(): expected the package mnist1d, which makes the data, found none "
                f"that can be imported ({error}). Install the extra that brings it: "
                "pip install 'mlo-engine[data]'."
            ) from error
        # Not get_dataset, which downloads, or else trusts a pickle in the working directory.
        made = data.make_dataset(data.get_dataset_args())
    signals = (torch.from_numpy(made[key]).float().unsqueeze(1) for key in ("x", "x_test"))
    labels = (torch.from_numpy(made[key]).long() for key in ("y", "y_test"))
    (x, x_test), (y, y_test) = signals, labels
    return x, y, x_test, y_test
