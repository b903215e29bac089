"""CIFAR-10 and CIFAR-100 in their official binary layout, from a folder or from the archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A file is
records end to end. A record is one label byte (CIFAR-100: the coarse label, then the fine one)
and 3,072 bytes of pixels: 32 x 32 red ones row by row, then green, then blue.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from mlo.errors import DataError
from problems.datasets.archive import verified_members
from problems.datasets.files import data_folder, find_path, refusal, unreadable
from problems.datasets.sets import DataSet

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
"""The page that the official archives come from."""

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CURE = f"unpack the official archive from {PAGE} again"


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one of the two sets consists of.

    Attributes:
        title: what tables call the official copy.
        archive: the name of the official archive.
        md5: the checksum that the official page states for it.
        folder: the folder in the archive.
        files: its files and the number of records of each; the last is the test part.
        ranges: the number of values of each label byte; the last byte is the class.
        known: names of other copies by the SHA-256 of their files, end to end.
    """

    title: str
    archive: str
    md5: str
    folder: str
    files: Mapping[str, int]
    ranges: tuple[int, ...]
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def size(self, file: str) -> int:
        """The size of one of the files in bytes."""
        return self.files[file] * (len(self.ranges) + _PIXELS)


LAYOUTS = {
    "cifar10": Layout(
        title="CIFAR-10",
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        files={
            f"{part}.bin": 10_000
            for part in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
        },
        ranges=(10,),
        known={
            # Made from JPEG files, in a permuted order: real images, but not the lossless ones.
            "f92f7dac137a6595509ca53c72ccc15c9e37ad618fca469e205b031cdb1cbb2b": "JPEG copy",
        },
    ),
    "cifar100": Layout(
        title="CIFAR-100",
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        files={"train.bin": 50_000, "test.bin": 10_000},
        ranges=(20, 100),
    ),
}
"""The two sets by their names in settings."""


def load_cifar(name: str, path: str | None = None) -> DataSet:
    """Load CIFAR-10 or CIFAR-100 without executing anything that a file holds.

    Only the archive whose checksum is the official one is called by the plain name; where a
    folder holds both, the archive is read. A folder is called after the SHA-256 of its files.

    Memory: the tensors, 184 MB, and while it reads one file more, or the unpacked archive.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        path: the archive, the folder with the files, or the folder that holds either; by default
            the folder of `MLO_DATA`.

    Returns:
        The set, images uint8 [N, 3, 32, 32]; CIFAR-100 with its superclasses.

    Raises:
        DataError: a file is absent, not readable, of the wrong size or not what its checksum
            says, or holds labels that do not fit.
    """
    layout = LAYOUTS[name]
    place = _place(layout, path)
    official = os.path.isfile(place)
    read = _from_archive(place, layout) if official else _from_folder(place, layout)
    images, labels, digest = _assembled(place, layout, read)
    cut = len(images) - layout.files[[*layout.files][-1]]
    classes = torch.from_numpy(labels[:, -1].astype(np.int64))
    _check_all_occur(place, layout, classes[:cut])
    note = layout.known.get(digest, f"unverified copy {digest[:8]}")
    return DataSet(
        name=name,
        source=layout.title if official else f"{layout.title} ({note})",
        fingerprint=digest,
        train=(images[:cut], classes[:cut]),
        test=(images[cut:], classes[cut:]),
        classes=layout.ranges[-1],
        superclasses=_superclasses(place, layout, labels) if len(layout.ranges) > 1 else None,
    )


def _place(layout: Layout, path: str | None) -> str:
    """The archive, or the folder with the files."""
    try:
        top = data_folder() if path is None else find_path(path)
    except DataError as error:
        raise DataError(f"{layout.title}: {error}. {_wanted(layout)}") from error
    if os.path.isfile(top):
        return top
    archive, folder = os.path.join(top, layout.archive), os.path.join(top, layout.folder)
    if os.path.isfile(archive):
        return archive
    if os.path.isdir(folder):
        return folder
    if any(os.path.lexists(os.path.join(top, file)) for file in layout.files):
        return top
    found = f"neither {layout.archive} nor {layout.folder}"
    raise refusal(top, f"a folder that holds {layout.title}", found, _wanted(layout))


def _wanted(layout: Layout) -> str:
    return (
        f"Fetch {layout.archive} (binary version) from {PAGE} and put it, packed or unpacked, into "
        "the folder that the environment variable MLO_DATA names, or give its path"
    )


def _from_archive(place: str, layout: Layout) -> Callable[[str], np.ndarray]:
    sizes = {f"{layout.folder}/{file}": layout.size(file) for file in layout.files}
    members = verified_members(place, layout.md5, sizes, _wanted(layout))
    return lambda file: members[f"{layout.folder}/{file}"]


def _from_folder(place: str, layout: Layout) -> Callable[[str], np.ndarray]:
    def read(file: str) -> np.ndarray:
        path, size = os.path.join(place, file), layout.size(file)
        if not os.path.isfile(path):
            raise refusal(path, f"a file of {layout.title} of {size} bytes", "none", _CURE)
        try:
            # What is longer is not read.
            content = np.fromfile(path, np.uint8, count=size + 1)
        except OSError as error:
            raise unreadable(path, f"a file of {size} bytes", error) from error
        if len(content) != size:
            found = f"{os.path.getsize(path)} bytes"
            raise refusal(path, f"{layout.files[file]} records, {size} bytes", found, _CURE)
        return content

    return read


def _assembled(
    place: str, layout: Layout, read: Callable[[str], np.ndarray]
) -> tuple[Tensor, np.ndarray, str]:
    """Images [N, 3, 32, 32], label bytes [N, L] and the SHA-256 of the files, end to end."""
    total, width = sum(layout.files.values()), len(layout.ranges)
    images = torch.empty(total, *_SHAPE, dtype=torch.uint8)
    pixels, labels = images.view(total, _PIXELS).numpy(), np.empty((total, width), np.uint8)
    digest, start = hashlib.sha256(), 0
    for file, count in layout.files.items():
        content = read(file)
        digest.update(content.data)
        records = content.reshape(count, width + _PIXELS)
        _check_range(os.path.join(place, file), layout, records[:, :width])
        labels[start : start + count] = records[:, :width]
        pixels[start : start + count] = records[:, width:]
        start += count
    return images, labels, digest.hexdigest()


def _check_range(path: str, layout: Layout, labels: np.ndarray) -> None:
    for column, values in enumerate(layout.ranges):
        wrong = np.flatnonzero(labels[:, column] >= values)
        if len(wrong):
            found = f"{labels[wrong[0], column]} in record {wrong[0]} (counted from 0)"
            raise refusal(path, f"labels from 0 to {values - 1}", found, _CURE)


def _check_all_occur(place: str, layout: Layout, classes: Tensor) -> None:
    absent = (torch.bincount(classes, minlength=layout.ranges[-1]) == 0).nonzero().flatten()
    if len(absent):
        expected = f"training images of all {layout.ranges[-1]} classes"
        raise refusal(place, expected, f"none of class {int(absent[0])}", _CURE)


def _superclasses(place: str, layout: Layout, labels: np.ndarray) -> Tensor:
    """The coarse label of each class, [K], which every record of the class must have."""
    coarse, fine = labels[:, 0].astype(np.int64), labels[:, 1]
    superclasses = np.zeros(layout.ranges[1], np.int64)
    superclasses[fine] = coarse
    other = np.flatnonzero(superclasses[fine] != coarse)
    if len(other):
        k = int(fine[other[0]])
        found = f"class {k} in {sorted(set(coarse[fine == k].tolist()))}"
        raise refusal(place, "each class in one superclass", found, _CURE)
    if len(np.unique(superclasses)) != layout.ranges[0]:
        found = f"{len(np.unique(superclasses))}"
        raise refusal(place, f"{layout.ranges[0]} superclasses", found, _CURE)
    return torch.from_numpy(superclasses)
