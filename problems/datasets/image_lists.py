"""Clothing1M's lists of keys, which are paths of images, and of keys with labels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from mlo.errors import DataError
from problems.datasets.files import refusal
from problems.datasets.image_folder import check_file, check_name

LONGEST_LIST = 2**30
"""Bytes that a list of keys or labels may have."""


class Listed(NamedTuple):
    """The files of one part, from the root, and the class of each."""

    files: list[str]
    labels: list[int]


def labels_of_keys(root: str, file: str, classes: int) -> dict[str, int]:
    """Read lines ``KEY LABEL``.

    Args:
        root: the folder of the list.
        file: its name.
        classes: the number of classes K.

    Returns:
        The label of each key.

    Raises:
        DataError: the list is absent, too long or no text; a line is another one, its label is
            not from 0 to K - 1, or a key has two labels.
    """
    labels: dict[str, int] = {}
    for number, line in _lines(root, file):
        *key, label = line.rsplit(maxsplit=1)
        if not key or not re.fullmatch(r"\d{1,9}", label, re.ASCII) or int(label) >= classes:
            expected = f"KEY LABEL with a label from 0 to {classes - 1} in line {number}"
            raise _refused_list(root, file, expected, repr(line[:200]))
        if labels.setdefault(key[0], int(label)) != int(label):
            raise _refused_list(root, file, "one label for each key", f"two for {key[0]!r}")
    return labels


def keyed(root: str, file: str, labels: dict[str, int], classes: int) -> Listed:
    """Read keys, one a line, and look up the labels and the files that belong to them.

    Args:
        root: the folder of the list and of the images.
        file: the name of the list.
        labels: the label of each key.
        classes: the number of classes K.

    Returns:
        The files and labels in the order of the list.

    Raises:
        DataError: the list is absent, too long or no text; a key occurs twice, has no label or
            no file, or leaves the folder; or a class has no key.
    """
    keys: dict[str, int] = {}
    for number, key in _lines(root, file):
        if key in keys:
            raise _refused_list(root, file, "each key once", f"{key!r} again in line {number}")
        if key not in labels:
            raise _refused_list(root, file, "keys with a label", f"{key!r} without one")
        check_name(key, root)
        check_file(root, key)
        keys[key] = labels[key]
    listed = Listed([*keys], [*keys.values()])
    return with_all_classes(os.path.join(root, file), listed, range(classes))


def with_all_classes(
    place: str, listed: Listed, classes: range, names: Sequence[str] | None = None
) -> Listed:
    """Return what is listed if every class occurs in it.

    Raises:
        DataError: a class does not occur; the message gives its name, or its number.
    """
    absent = sorted({*classes} - {*listed.labels})
    if absent:
        name = absent[0] if names is None else names[absent[0]]
        found = f"none of class {name}"
        raise refusal(place, f"images of all {len(classes)} classes", found, "fetch the rest")
    return listed


def _lines(root: str, file: str) -> list[tuple[int, str]]:
    """The lines that are not empty, and their numbers from 1."""
    path = os.path.join(root, file)
    if not os.path.isfile(path):
        raise refusal(path, "a list of Clothing1M", "no file", "unpack the whole set")
    with open(path, "rb") as opened:
        content = opened.read(LONGEST_LIST + 1)
    if len(content) > LONGEST_LIST:
        raise _refused_list(root, file, f"at most {LONGEST_LIST} bytes", "more")
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise _refused_list(root, file, "text in UTF-8", "other bytes") from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _refused_list(root: str, file: str, expected: str, found: str) -> DataError:
    return refusal(os.path.join(root, file), expected, found, "fetch or correct the list")
