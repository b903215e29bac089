"""The folder of one run: configuration, versions, records, results and plots."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mlo.errors import ConfigurationError
from mlo.files import json_text, write_text
from mlo.versions import environment


class RunFolder:
    """A new folder, and the names of what is in it.

    ::

        config.json            the resolved configuration; `mlo run --config` takes it back
        versions.json          software and machine
        records-<name>.jsonl   one line of JSON for each record, by `Recorder`
        results.json           the final numbers
        plots/                 pictures

    JSON files are written in one step, so none is ever seen half finished.

    Args:
        path: the folder to create, with its parents; an empty one is taken as it is.
        exist_ok: whether it may be there already.

    Raises:
        ConfigurationError: it holds files, is a file, or cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str], *, exist_ok: bool = True) -> None:
        self.path = pathlib.Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=exist_ok)
            occupied = any(self.path.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"run folder: cannot create '{self.path}': {error.strerror}; "
                "choose a folder that can be written to"
            ) from error
        if occupied:
            raise ConfigurationError(
                f"run folder: expected a new or empty folder, found files in '{self.path}'; "
                "choose another, since a run never overwrites an older one"
            )

    def write_config(self, config: BaseModel) -> None:
        """Write the resolved configuration."""
        self._write("config.json", config.model_dump(mode="json"))

    def write_versions(self) -> None:
        """Write what the run is made with."""
        self._write("versions.json", environment())

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write the final numbers, or replace the ones of an unfinished run."""
        self._write("results.json", results)

    def records(self, name: str) -> pathlib.Path:
        """Path of the records called `name`, for `Recorder`."""
        return self.path / f"records-{name}.jsonl"

    def plot(self, name: str) -> pathlib.Path:
        """Path of the picture called `name`, as PNG; makes the folder of plots."""
        folder = self.path / "plots"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.png"

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.path / name, json_text(value, indent=2) + "\n")


def new_folder(parent: str | os.PathLike[str], name: str) -> RunFolder:
    """Make a folder for a run named after the present second, and no other run's.

    Raises:
        ConfigurationError: it cannot be created.
    """
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path, number = pathlib.Path(parent) / stem, 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}-{number}")
    return RunFolder(path, exist_ok=False)
