"""The folder of one run: configuration, versions, records, metrics and plots."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import filelock
from pydantic import BaseModel

from mlo.errors import RunFolderError
from mlo.files import json_text, read_json, write_text, writing
from mlo.metrics import Metric, as_csv
from mlo.run_lock import LOCK, locked
from mlo.stage_folder import StageFolder, check_names, slug
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
        .lock                  held while a process writes; it stays, but is free then

    All but the records, which grow, are written in one step, so none is ever seen half finished.
    While a process writes to the folder, it holds a lock, which goes with the process however it
    ends. Use `create` or `resume`, and the folder in a `with` statement.
    """

    def __init__(self, path: pathlib.Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Make a new folder, with its parents; an empty one is taken as it is.

        Raises:
            RunFolderError: it holds files, is a file, is in use, or cannot be created.
        """
        path = pathlib.Path(path)
        _make(path)
        _check_empty(path)  # before the lock, which would leave its file among the others
        folder = cls(path, locked(path))
        with folder._giving_back_on_error():
            _check_empty(path)  # another run may have begun and ended in between
        return folder

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take the folder of a run that was cut off.

        Raises:
            RunFolderError: it is none, the run is complete, or a process is still at work in it.
        """
        path = pathlib.Path(path)
        read_json(path / "run.json")  # no lock is laid into a folder that is none
        folder = cls(path, locked(path))
        with folder._giving_back_on_error():
            state = folder.state
            if state.get("status") == "completed":
                raise RunFolderError(
                    f"run folder: the run in '{path}' is complete; nothing to resume"
                )
            folder._write("run.json", {**state, **_state("running", "", state)})
        return folder

    @property
    def state(self) -> dict[str, Any]:
        """What `run.json` says."""
        return read_json(self.path / "run.json")

    def begin(self, recipe: str, config: BaseModel, stages: Mapping[str, int]) -> None:
        """Write what the run is, with the ticks of its stages.

        Raises:
            RunFolderError: two stages would share a folder, or something cannot be written.
        """
        check_names(list(stages))
        self._write("config.json", config.model_dump(mode="json", by_alias=True))
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

    def plot(self, name: str, kind: str = "png") -> pathlib.Path:
        """Path of the picture called `name`, of that kind of file; makes the folder of plots."""
        folder = self.path / "plots"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / f"{slug(name)}.{kind}"

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def _giving_back_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._lock.release()
            raise

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.path / name, json_text(value, indent=2) + "\n")


def new_folder(parent: str | os.PathLike[str], name: str) -> RunFolder:
    """Make a folder for a run named after the present second, and no other run's.

    Raises:
        RunFolderError: it cannot be created.
    """
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    _make(pathlib.Path(parent))
    path, number = pathlib.Path(parent) / stem, 1
    while not _made(path):
        number += 1
        path = path.with_name(f"{stem}-{number}")
    return RunFolder.create(path)


def _make(path: pathlib.Path) -> None:
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def _made(path: pathlib.Path) -> bool:
    """Make a folder, unless something of its name is there; no two processes can both make it."""
    with writing(path):
        try:
            path.mkdir()
        except FileExistsError:
            return False
    return True


def _check_empty(path: pathlib.Path) -> None:
    with writing(path):
        occupied = any(entry.name != LOCK for entry in path.iterdir())
    if occupied:
        begun = (path / "run.json").exists()
        raise RunFolderError(
            f"run folder: expected a new or empty folder, found files in '{path}'; choose "
            "another, since a run never overwrites an older one"
            + (", or go on with --resume" if begun else "")
        )


def _state(status: str, reason: str, before: Mapping[str, Any]) -> dict[str, Any]:
    started = before.get("started", _now())
    times = {"started": started, "ended": None, "seconds": before.get("seconds", 0.0)}
    return {"status": status, "reason": reason, **times}


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
