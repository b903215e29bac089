"""Images and labels of one's own, from an .npz file that is never allowed to execute code."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import torch
from torch import Tensor

from mlo.errors import DataError, described
from mlo.misfit import shown

LARGEST = 8 * 10**9
"""Bytes that the two arrays may take when they are unpacked."""

_NAMES = ("x", "y")


def load_arrays(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Load what ``numpy.savez(path, x=images, y=labels)`` has written.

    Arrays of objects, which are pickles, are refused and not opened, and so is more than
    `LARGEST` bytes. All checksums are looked at.

    Args:
        path: the file. `x` is [N, C, H, W], floating or uint8; uint8 is divided by 255. `y` is
            [N], whole numbers from 0 to K - 1 that all occur. Other arrays are not read.

    Returns:
        Images as float32 [N, C, H, W] and labels as int64 [N].

    Raises:
        DataError: the file is absent, damaged, too large or of another kind, or its arrays are
            not as described.
    """
    x, y = _read(path)
    images, labels = _images(x, path), _labels(y, path)
    if len(images) != len(labels):
        raise _refusal(
            path,
            "one label in y for each image in x",
            f"{len(images)} images and {len(labels)} labels",
            "index both with the same index set",
        )
    return images, labels


def _read(path: str | os.PathLike[str]) -> list[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
            if not entries.keys() >= {*_NAMES}:
                raise _refusal(
                    path,
                    "the arrays 'x' and 'y'",
                    ", ".join(map(shown, [*entries][:8])) or "none",
                    _CURE,
                )
            size = sum(entries[name].file_size for name in _NAMES)
            if size > LARGEST:
                raise _refusal(
                    path, f"arrays of at most {LARGEST} bytes", f"{size}", "take a part of the data"
                )
            return [_array(archive, entries[name]) for name in _NAMES]
    except DataError:
        raise
    except OSError as error:
        found_instead = f"no file that can be read ({error.strerror or error})"
        raise _refusal(path, "an .npz file", found_instead, "give its path") from error
    # Damage can surface as nearly every kind of error.
    except Exception as error:
        # A file decides some of these words, and a terminal obeys what is not printable.
        reason = repr(described(error).partition("\n")[0][:200])[1:-1]
        raise _refusal(
            path, "an .npz file of numbers", f"another one, or a damaged one ({reason})", _CURE
        ) from error


_CURE = "write it by numpy.savez(path, x=images, y=labels)"


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        # The checksum is compared only where the end is read.
        if member.read(1):
            raise zipfile.BadZipFile(f"{entry.filename} is longer than its array")
    return array


def _images(x: np.ndarray, path: str | os.PathLike[str]) -> Tensor:
    if x.ndim != 4 or not x.size or not (x.dtype.kind == "f" or x.dtype == np.uint8):
        raise _refusal(
            path,
            "x [N, C, H, W] of floating numbers or uint8, with no size 0",
            f"{x.dtype} {list(x.shape)}",
            "give images one channel at least, and convert them",
        )
    with np.errstate(over="ignore"):  # what is too large is found below
        images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    if x.dtype == np.uint8:
        return images.div_(255)
    unfit = int((~images.isfinite()).sum())
    if unfit:
        raise _refusal(
            path,
            "x of numbers that are finite in float32",
            f"{unfit} that are not",
            "repair or leave out the images that hold them",
        )
    return images


def _labels(y: np.ndarray, path: str | os.PathLike[str]) -> Tensor:
    if y.ndim != 1 or not y.size or y.dtype.kind not in "iu":
        raise _refusal(
            path,
            "y [N] of whole numbers",
            f"{y.dtype} {list(y.shape)}",
            "give class indices, not one-hot rows or names",
        )
    occurring = np.unique(y)
    classes = len(occurring)
    if classes < 2 or int(occurring[0]) != 0 or int(occurring[-1]) != classes - 1:
        raise _refusal(
            path,
            "labels y from 0 to K - 1, at least two, which all occur",
            f"{classes} classes from {occurring[0]} to {occurring[-1]}",
            "renumber the classes: y = numpy.unique(y, return_inverse=True)[1]",
        )
    return torch.from_numpy(y.astype(np.int64))


def _refusal(path: str | os.PathLike[str], expected: str, found: str, cure: str) -> DataError:
    return DataError(f"{os.fspath(path)!r}: expected {expected}, found {found}; {cure}")
