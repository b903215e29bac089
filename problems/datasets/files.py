"""Where the files are that settings name."""

from __future__ import annotations

import os

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
    name = os.path.expanduser(name)
    folders = [os.curdir, *filter(None, [os.environ.get(FOLDER)])]
    places = dict.fromkeys(os.path.abspath(os.path.join(folder, name)) for folder in folders)
    for place in places:
        if os.path.isfile(place):
            return place
    raise DataError(
        f"expected a file, found none at {' or '.join(map(repr, places))}; give its path, from "
        f"here or from the folder in the environment variable {FOLDER}"
    )
