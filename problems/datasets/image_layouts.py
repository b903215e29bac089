"""Where three data sets of image files keep their labels.

ANIMAL-10N (H. Song et al., ICML 2019): ``training/`` and ``testing/``, files ``LABEL_ID.jpg``.
Clothing1M (T. Xiao et al., CVPR 2015): lists of keys, which are paths, and of keys with labels.
ImageNet (O. Russakovsky et al., IJCV 2015): ``train/WNID/*.JPEG`` and ``val/WNID/*.JPEG``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence

import torch

from mlo.errors import DataError
from problems.datasets.files import data_folder, find_path, refusal, unreadable
from problems.datasets.image_folder import ImageFolder, check_file
from problems.datasets.image_lists import Listed, keyed, labels_of_keys, with_all_classes


@dataclasses.dataclass(frozen=True)
class ImageLayout:
    """How one of the sets lies on the disk.

    Attributes:
        title: what tables call it.
        size: height and width that its images are decoded to by default.
        page: where it comes from.
        holds: the entry that the right folder has.
        parts: lists a folder: the parts by name, ``train`` and ``test`` among them.
    """

    title: str
    size: int
    page: str
    holds: str
    parts: Callable[[str], dict[str, Listed]]


def image_folders(
    name: str, path: str | None = None, *, size: int | None = None
) -> dict[str, ImageFolder]:
    """Find the images of a set and their labels; no image is opened before it is asked for.

    All names and labels are checked: each file is there, and each class occurs in each part.

    Args:
        name: ``"animal10n"``, ``"clothing1m"`` or ``"imagenet"``.
        path: its folder; by default the folder of that name in the folder of `MLO_DATA`.
        size: height and width to decode to; by default 64 for ANIMAL-10N and 224 for the others.

    Returns:
        The parts ``train`` and ``test``. Clothing1M's ``train`` has noisy labels; it has
        ``clean_train`` and ``clean_val`` too. ImageNet's ``test`` is its folder ``val``.

    Raises:
        ConfigurationError: `size` is not positive.
        DataError: there is no such set, it is absent, or its files and labels do not fit.
    """
    layout = IMAGE_LAYOUTS.get(name)
    if layout is None:
        raise DataError(f"name: expected one of {', '.join(IMAGE_LAYOUTS)}, found {name!r}")
    root = _root(name, layout, path)
    try:
        parts = layout.parts(root)
    except OSError as error:
        raise unreadable(error.filename or root, f"a part of {layout.title}", error) from error
    size = layout.size if size is None else size
    return {
        part: ImageFolder(listed.files, torch.tensor(listed.labels), size, root=root)
        for part, listed in parts.items()
    }


def _root(name: str, layout: ImageLayout, path: str | None) -> str:
    wanted = (
        f"Fetch {layout.title} from {layout.page} and unpack it into the folder {name} of the "
        "folder that the environment variable MLO_DATA names, or give its path"
    )
    try:
        root = os.path.join(data_folder(), name) if path is None else find_path(path)
    except DataError as error:
        raise DataError(f"{layout.title}: {error}. {wanted}") from error
    if not os.path.exists(os.path.join(root, layout.holds)):
        found = f"no {layout.holds} in it" if os.path.isdir(root) else "no folder"
        raise refusal(root, f"the folder of {layout.title}", found, wanted)
    return root


def _animal10n(root: str) -> dict[str, Listed]:
    return {
        "train": _labelled_names(root, "training", classes=10),
        "test": _labelled_names(root, "testing", classes=10),
    }


def _labelled_names(root: str, part: str, classes: int) -> Listed:
    files, labels = [], []
    for name in _visible(root, part):
        label = re.fullmatch(r"(\d{1,9})_.+\.jpe?g", name, re.ASCII | re.IGNORECASE)
        file = os.path.join(part, name)
        if label is None or int(label[1]) >= classes:
            expected = f"a name LABEL_ID.jpg with a label from 0 to {classes - 1}"
            raise refusal(os.path.join(root, file), expected, repr(name), "rename or remove it")
        check_file(root, file)
        files.append(file)
        labels.append(int(label[1]))
    return with_all_classes(os.path.join(root, part), Listed(files, labels), range(classes))


def _clothing1m(root: str) -> dict[str, Listed]:
    noisy, clean = (labels_of_keys(root, f"{kind}_label_kv.txt", 14) for kind in ("noisy", "clean"))
    return {
        "train": keyed(root, "noisy_train_key_list.txt", noisy, 14),
        "clean_train": keyed(root, "clean_train_key_list.txt", clean, 14),
        "clean_val": keyed(root, "clean_val_key_list.txt", clean, 14),
        "test": keyed(root, "clean_test_key_list.txt", clean, 14),
    }


def _imagenet(root: str) -> dict[str, Listed]:
    names = _visible(root, "train")
    if len(names) < 2:
        expected = "a folder for each of at least two classes"
        found = f"{len(names)}"
        raise refusal(os.path.join(root, "train"), expected, found, "unpack the archives in it")
    return {"train": _in_folders(root, "train", names), "test": _in_folders(root, "val", names)}


def _in_folders(root: str, part: str, names: Sequence[str]) -> Listed:
    here = set(_visible(root, part))
    if here != {*names}:
        # The set difference both ways: a class is missing here, or is here alone.
        odd = min(here ^ {*names})
        found = f"{odd!r} in one of them only"
        cure = "sort the images of both parts into folders named after their classes"
        raise refusal(os.path.join(root, part), "the classes of train", found, cure)
    files, labels = [], []
    for label, name in enumerate(names):
        for file in _visible(root, os.path.join(part, name)):
            image = os.path.join(part, name, file)
            if not re.fullmatch(r".+\.(jpe?g|png)", file, re.IGNORECASE):
                path = os.path.join(root, image)
                raise refusal(path, "an image, .JPEG or .png", repr(file), "remove it")
            check_file(root, image)
            files.append(image)
            labels.append(label)
    listed = Listed(files, labels)
    return with_all_classes(os.path.join(root, part), listed, range(len(names)), names)


def _visible(root: str, folder: str) -> list[str]:
    """What a folder holds, sorted, without the hidden files that systems leave there."""
    path = os.path.join(root, folder)
    if not os.path.isdir(path):
        found = "no folder" if not os.path.lexists(path) else "something else"
        cure = "sort the images into folders as the set has them"
        raise refusal(path, "a folder of images or classes", found, cure)
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


IMAGE_LAYOUTS = {
    "animal10n": ImageLayout(
        "ANIMAL-10N", 64, "https://dm.kaist.ac.kr/datasets/animal-10n", "training", _animal10n
    ),
    "clothing1m": ImageLayout(
        "Clothing1M",
        224,
        "https://github.com/Cysu/noisy_label",
        "noisy_train_key_list.txt",
        _clothing1m,
    ),
    "imagenet": ImageLayout(
        "ImageNet", 224, "https://image-net.org/download.php", "train", _imagenet
    ),
}
"""The sets by their names in settings."""
