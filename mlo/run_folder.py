"""The folder of one run: configuration, versions, records, metrics and plots."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import filelock
from pydantic import BaseModel

from mlo.errors import RunFolderError
from mlo.files import json_text, read_json, write_text
from mlo.metrics import Metric, as_csv
from mlo.run_lock import locked
from mlo.stage_folder import StageFolder, slug
from mlo.versions import environment


class RunFolder:
    """A folder that one process writes to, and the names of what is in it.

    ::

        run.json               recipe, seeds, stages, and how far the run is or how it ended
        config.json            the resolved configuration; `mlo run --config` takes it back
        versions.json          software and machine
        seed-0/STAGE/          records, checkpoints and metrics of one stage (see `StageFolder`)
        metrics.csv            the final metrics of every stage that is over, one a line
        results.json           the final numbers, once all is over
        plots/                 pictures

    All but the records, which grow, are written in one step, so none is ever seen half finished.
    While a process writes to the folder, it holds a lock, which goes with the process however it
    ends. Use `create` or `resume`, and the folder in a `with` statement.
    """

    def __init__(self, path: pathlib.Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, exist_ok: bool = True) -> RunFolder:
        """Make a new folder, with its parents; an empty one is taken as it is.

        Raises:
            RunFolderError: it holds files, is a file, or cannot be created.
        """
        path = pathlib.Path(path)
        try:
            path.mkdir(parents=True, exist_ok=exist_ok)
            occupied = any(path.iterdir())
        except OSError as error:
            raise RunFolderError(
                f"run folder: cannot create '{path}': {error.strerror}; "
                "choose a folder that can be written to"
            ) from error
        if occupied:
            raise RunFolderError(
                f"run folder: expected a new or empty folder, found files in '{path}'; choose "
                "another, since a run never overwrites an older one, or go on with --resume"
            )
        return cls(path, locked(path))

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take the folder of a run that was cut off.

        Raises:
            RunFolderError: it is none, the run is complete, or a process is still at work in it.
        """
        path = pathlib.Path(path)
        if read_json(path / "run.json").get("status") == "completed":
            raise RunFolderError(f"run folder: the run in '{path}' is complete; nothing to resume")
        folder = cls(path, locked(path))
        state = folder.state
        folder._write("run.json", {**state, **_state("running", "", state)})
        return folder

    @property
    def state(self) -> dict[str, Any]:
        """What `run.json` says."""
        return read_json(self.path / "run.json")

    def begin(self, recipe: str, config: BaseModel, stages: Mapping[str, int]) -> None:
        """Write what the run is, with the ticks of its stages.

        Raises:
            RunFolderError: two stages would share a folder.
        """
        if len({slug(stage) for stage in stages}) < len(stages):
            raise RunFolderError(
                f"recipe '{recipe}': expected stages whose names differ in letters or digits, "
                f"found {list(stages)}; rename one"
            )
        self._write("config.json", config.model_dump(mode="json"))
        self._write("versions.json", environment())
        self._write("run.json", {"recipe": recipe, "stages": stages, **_state("running", "", {})})

    def end(self, status: str, reason: str, seconds: float) -> None:
        """Write how the run ended: `completed`, `interrupted` or `failed`, and why."""
        state = self.state
        after = {**_state(status, reason, state), "ended": _now()}
        self._write("run.json", {**state, **after, "seconds": state["seconds"] + seconds})

    def stage(self, seed: int, name: str) -> StageFolder:
        """The part of one stage."""
        return StageFolder(self.path / f"seed-{seed}" / slug(name))

    def write_metrics(self, metrics: Sequence[Metric]) -> None:
        """Write the table of the metrics that are final so far."""
        write_text(self.path / "metrics.csv", as_csv(metrics))

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write the final numbers."""
        self._write("results.json", results)

    def plot(self, name: str) -> pathlib.Path:
        """Path of the picture called `name`, as PNG; makes the folder of plots."""
        folder = self.path / "plots"
        folder.mkdir(exist_ok=True)
        return folder / f"{slug(name)}.png"

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.path / name, json_text(value, indent=2) + "\n")


def new_folder(parent: str | os.PathLike[str], name: str) -> RunFolder:
    """Make a folder for a run named after the present second, and no other run's.

    Raises:
        RunFolderError: it cannot be created.
    """
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path, number = pathlib.Path(parent) / stem, 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}-{number}")
    return RunFolder.create(path, exist_ok=False)


def _state(status: str, reason: str, before: Mapping[str, Any]) -> dict[str, Any]:
    started = before.get("started", _now())
    times = {"started": started, "ended": None, "seconds": before.get("seconds", 0.0)}
    return {"status": status, "reason": reason, **times}


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
