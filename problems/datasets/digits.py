"""The handwritten digits that ship with scikit-learn: real images, no download."""

from __future__ import annotations

import torch
from torch import Tensor

from mlo.errors import DataError

# Each pixel counts the set bits of a 4 x 4 block of the original 32 x 32 scan.
_LARGEST_PIXEL = 16.0


def load_digits() -> tuple[Tensor, Tensor]:
    """Load the 1797 digits of 8 x 8 pixels in 10 classes, about 180 of each.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998 (its test part), as distributed with scikit-learn.

    Returns:
        Images as float32 [1797, 1, 8, 8] in the range 0 to 1, and labels as int64 [1797].

    Raises:
        DataError: If scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "load_digits(): expected the package scikit-learn, which holds the images, found none. "
            "Install the extra that brings it: pip install 'mlo-engine[data]'."
        ) from error
    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32) / _LARGEST_PIXEL
    return images.unsqueeze(1), torch.from_numpy(digits.target).to(torch.int64)
