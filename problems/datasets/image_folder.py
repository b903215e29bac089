"""Images in files, decoded one by one when they are asked for, or all at once into memory."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from types import ModuleType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mlo.errors import ConfigurationError, DataError, described
from problems.datasets.files import refusal, unreadable
from problems.datasets.sets import Labelled

LARGEST = 8 * 10**9
"""Bytes that the images of `decoded` may take."""

LARGEST_IMAGE = 2**26
"""Pixels that one image file may hold, so that a small file cannot fill the memory."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG")
"""Formats that are decoded, whatever the name of the file ends in."""

_CURE = "fetch the file again, or leave it out"


class ImageFolder(Dataset[tuple[Tensor, int, int]]):
    """Images of one size out of files, as (uint8 [3, H, W], label, index), decoded when asked for.

    An image is cut to its middle square and resized to H = W = `size` by bilinear interpolation
    with antialiasing; an image of that size stays as it is. What is not RGB is converted.

    Args:
        files: paths from `root`, one for each image.
        labels: the class of each image, int64 [N].
        size: height and width of the images handed out.
        root: the folder that the files lie in. No file outside it is opened, and neither is one
            that a link leads out to.

    Raises:
        ConfigurationError: `size` is not positive.
        DataError: files and labels differ in number; a path leaves `root`; pillow is not
            installed. When an image is asked for: it is absent, damaged or too large.
    """

    def __init__(self, files: Sequence[str], labels: Tensor, size: int, *, root: str) -> None:
        if size < 1:
            raise ConfigurationError(
                f"size: expected a positive number of pixels, found {size}. Take 64 or 224."
            )
        if labels.shape != (len(files),):
            raise DataError(
                f"files, labels: expected one label per file, found {len(files)} files and labels "
                f"of shape {list(labels.shape)}. Index both with the same index set."
            )
        for file in files:
            check_name(file, root)
        _pillow()
        self.files = files
        self.labels = labels
        self.size = size
        self.root = os.path.abspath(root)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Decode one image; the index returned counts from the start."""
        index = range(len(self))[index]
        image = decode(check_file(self.root, self.files[index]), self.size)
        return image, int(self.labels[index]), index


def decoded(folder: ImageFolder, *, limit: int = LARGEST) -> Labelled:
    """Decode all images into one tensor.

    Args:
        folder: the images.
        limit: the most bytes that they may take together.

    Returns:
        Images uint8 [N, 3, H, W] and labels int64 [N].

    Raises:
        DataError: they take more, or an image is absent, damaged or too large.
    """
    check_fits([folder], limit)
    images = torch.empty(len(folder), 3, folder.size, folder.size, dtype=torch.uint8)
    for index in range(len(folder)):
        images[index] = folder[index][0]
    return images, folder.labels.clone()


def check_fits(folders: Sequence[ImageFolder], limit: int = LARGEST) -> None:
    """Refuse images that would take more than so many bytes together when they are decoded.

    Raises:
        DataError: they would.
    """
    size = sum(len(folder) * 3 * folder.size**2 for folder in folders)
    if size > limit:
        count, pixels = sum(map(len, folders)), folders[0].size
        raise refusal(
            folders[0].root,
            f"images of at most {limit} bytes in memory",
            f"{size} for {count} images of {pixels} x {pixels} pixels",
            "choose a smaller size, or read them one by one through image_folders()",
        )


def decode(path: str, size: int) -> Tensor:
    """Decode one image file to uint8 [3, size, size]; see `ImageFolder`.

    Raises:
        DataError: the file cannot be read, is no image, is damaged, or holds too many pixels.
    """
    pillow = _pillow()
    try:
        with open(path, "rb") as file:
            return _pixels(pillow, path, file, size)
    except DataError:
        raise
    except OSError as error:
        # Pillow says by the same kind of error, without a number, that it cannot decode.
        if error.errno is not None:
            raise unreadable(path, "an image", error) from error
        raise _damaged(path, error) from error
    # Damage can surface as nearly every kind of error.
    except Exception as error:
        raise _damaged(path, error) from error


def check_name(name: str, root: str) -> None:
    """Refuse a path that would leave the folder it is given from.

    Raises:
        DataError: the path is absolute, empty, or has a part ``..``.
    """
    if not name or "\0" in name or os.path.isabs(name) or ".." in name.split("/"):
        raise refusal(root, "paths inside it", repr(name), "correct or leave out that path")


def check_file(root: str, name: str) -> str:
    """The path of a plain file in a folder.

    Raises:
        DataError: there is none, or a link leads out of the folder.
    """
    path = os.path.join(root, name)
    try:
        mode = os.lstat(path).st_mode
        linked = stat.S_ISLNK(mode)
        inside = _leads_inside(root, path) if linked else _inside(root, os.path.dirname(path))
        plain = os.path.isfile(path) if linked else stat.S_ISREG(mode)
    except FileNotFoundError as error:
        raise refusal(path, "an image", "no file", _CURE) from error
    except OSError as error:
        raise unreadable(path, "an image", error) from error
    if not inside:
        raise refusal(path, f"a file in {root!r}", "a link out of it", "put the file itself there")
    if not plain:
        raise refusal(path, "an image", "no file", _CURE)
    return path


@functools.lru_cache(maxsize=4096)
def _inside(root: str, folder: str) -> bool:
    return _leads_inside(root, folder)


def _leads_inside(root: str, path: str) -> bool:
    real = os.path.realpath(root)
    return os.path.commonpath([real, os.path.realpath(path)]) == real


def _pixels(pillow: ModuleType, path: str, file: BinaryIO, size: int) -> Tensor:
    with pillow.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > LARGEST_IMAGE:
            found = f"{width} x {height}"
            raise refusal(path, f"at most {LARGEST_IMAGE} pixels", found, _CURE)
        rgb = image.convert("RGB")
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # The box is cut inside the resizing: the long side is never scaled up.
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((size, size), pillow.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _damaged(path: str, error: Exception) -> DataError:
    # The file decides some of these words, and a terminal obeys what is not printable.
    reason = repr(described(error).partition("\n")[0][:200])[1:-1]
    found = f"a damaged one or a file of another kind ({reason})"
    return refusal(path, f"an image ({', '.join(FORMATS)})", found, _CURE)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "images: expected the package pillow, which decodes them, found none. "
            "Install the extra that brings it: pip install 'mlo-engine[data]'."
        ) from error
    return Image
