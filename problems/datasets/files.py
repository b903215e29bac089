"""Where the files and folders are that settings name, and what is said of those that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable

from mlo.errors import DataError

FOLDER = "MLO_DATA"
"""Environment variable with a folder in which files are looked for too."""


def find_file(name: str) -> str:
    """Find a file by its path: from the working directory, else in the folder of `MLO_DATA`.

    Args:
        name: the path; ``~`` is the home directory.

    Returns:
        The absolute path, which names the same file from every working directory.

    Raises:
        DataError: there is none.
    """
    return _found(name, os.path.isfile, "a file")


def find_path(name: str) -> str:
    """Find a file or a folder as `find_file` finds a file.

    Args:
        name: the path; ``~`` is the home directory.

    Returns:
        The absolute path.

    Raises:
        DataError: there is neither.
    """
    return _found(name, _is_either, "a file or a folder")


def data_folder() -> str:
    """The folder of `MLO_DATA`, where data sets lie that no path is given for.

    Raises:
        DataError: the variable is not set, or names no folder.
    """
    folder = os.path.abspath(os.path.expanduser(os.environ.get(FOLDER) or os.curdir))
    if not os.environ.get(FOLDER):
        raise DataError(
            f"expected a folder of data sets in the environment variable {FOLDER}, found it not "
            f"set; give a path, or set {FOLDER}"
        )
    if not os.path.isdir(folder):
        raise refusal(folder, f"the folder that {FOLDER} names", "none", f"set {FOLDER} anew")
    return folder


def refusal(path: str | os.PathLike[str], expected: str, found: str, cure: str) -> DataError:
    """Make the error of a file that does not fit: which, expected, found, and what to do."""
    return DataError(f"{os.fspath(path)!r}: expected {expected}, found {found}; {cure}")


def unreadable(path: str | os.PathLike[str], expected: str, error: OSError) -> DataError:
    """Make the error of a file that the system does not let us read."""
    return refusal(
        path,
        expected,
        f"one that cannot be read ({error.strerror or type(error).__name__})",
        "look at its permissions and at the disk",
    )


def _is_either(place: str) -> bool:
    return os.path.isfile(place) or os.path.isdir(place)


def _found(name: str, fits: Callable[[str], bool], what: str) -> str:
    name = os.path.expanduser(name)
    folders = [os.curdir, *filter(None, [os.environ.get(FOLDER)])]
    places = dict.fromkeys(os.path.abspath(os.path.join(folder, name)) for folder in folders)
    for place in places:
        if fits(place):
            return place
    raise DataError(
        f"expected {what}, found none at {' or '.join(map(repr, places))}; give its path, from "
        f"here or from the folder in the environment variable {FOLDER}"
    )
