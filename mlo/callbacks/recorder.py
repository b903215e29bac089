"""Records of a run in a file, one line of JSON each."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TextIO

from mlo.callbacks.base import Callback
from mlo.errors import CheckpointError, ConfigurationError
from mlo.files import json_text, writing
from mlo.records import (
    EvaluationRecord,
    StartRecord,
    TickRecord,
)
from mlo.run_result import RunResult

_FLUSH = 1.0
"""Seconds that a record may wait before it is written."""


class Recorder(Callback):
    """Writes the start, the ticks, the evaluations and the end of a run to a file.

    Each line is a JSON object; its `"kind"` says which of the four it is. Records are read and
    written together about once a second, since reading a loss waits for the device. Several runs
    with one recorder follow each other in its file. When a run is resumed, the records of ticks
    that are made again are cut off, so that the file is that of a run that was never cut off.

    Args:
        path: file to create.
        every: write every n-th tick only, beside the last one; evaluations are all written.
        resume: the file may be that of the run that is to be resumed; where there is no state to
            go on from, it begins anew.

    Raises:
        ConfigurationError: the file exists already, or `every` is not positive.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int = 1, resume: bool = False
    ) -> None:
        self.path = pathlib.Path(path)
        if self.path.exists() and not resume:
            raise _exists(self.path)
        if every < 1:
            raise ConfigurationError(
                f"Recorder(every=...): expected at least 1, got {every}; 1 writes all ticks"
            )
        self.every = every
        self._file: TextIO | None = None
        self._mode: Literal["a", "w", "x"] = "w" if resume else "x"
        self._size: int | None = None  # to cut the file off at, where a run is resumed
        self._waiting: list[Callable[[], dict[str, Any]]] = []
        self._skipped: TickRecord | _Plain | None = None
        self._due = 0.0

    def state_dict(self) -> dict[str, Any]:
        """How much of the file there is, once everything so far is on the disk."""
        if self._file is not None:
            self._write(self._file)
            with writing(self.path):
                os.fsync(self._file.fileno())
        size = self.path.stat().st_size if self.path.exists() else 0
        skipped = None if self._skipped is None else self._skipped.plain()
        return {"bytes": size, "skipped": skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind that much of the file.

        Raises:
            CheckpointError: there is less.
        """
        size, found = state["bytes"], self.path.stat().st_size if self.path.exists() else 0
        if found < size:
            raise CheckpointError(
                f"Recorder: expected at least {size} bytes of records in '{self.path}', found "
                f"{found}; put the file of the run there that is to be resumed, or leave it out"
            )
        self._mode, self._size = "a", size
        skipped = state["skipped"]
        self._skipped = None if skipped is None else _Plain(skipped)

    def on_start(self, record: StartRecord) -> None:
        """Create the file, or continue that of an earlier run."""
        if self._size is not None:
            with writing(self.path):
                os.truncate(self.path, self._size)
            self._size = None
        try:
            self._file = self.path.open(self._mode, encoding="utf-8")
        except FileExistsError as error:
            raise _exists(self.path) from error
        except OSError as error:
            raise ConfigurationError(
                f"Recorder: cannot create '{self.path}': {error.strerror}; "
                "give a path in an existing folder that can be written to"
            ) from error
        self._mode = "a"
        if not record.done:
            self._add(record.plain)

    def on_tick(self, record: TickRecord) -> None:
        """Take every n-th tick."""
        if record.tick % self.every == 0:
            self._skipped = None
            self._add(record.plain)
        else:
            self._skipped = record

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """Take the evaluation."""
        self._add(record.plain)

    def on_end(self, result: RunResult) -> None:
        """Write what is left, the last tick among it, and close the file."""
        if self._file is None:
            return
        if self._skipped is not None:
            self._waiting.append(self._skipped.plain)
            self._skipped = None
        self._waiting.append(result.plain)
        try:
            self._write(self._file)
        finally:
            file, self._file = self._file, None
            with writing(self.path):
                file.close()

    def _add(self, plain: Callable[[], dict[str, Any]]) -> None:
        self._waiting.append(plain)
        if self._file is not None and time.monotonic() >= self._due:
            self._write(self._file)

    def _write(self, file: TextIO) -> None:
        waiting, self._waiting = self._waiting, []
        lines = [json_text(plain()) + "\n" for plain in waiting]
        with writing(self.path):
            file.writelines(lines)
            file.flush()
        self._due = time.monotonic() + _FLUSH


class _Plain:
    """A record that was read from a file."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def plain(self) -> dict[str, Any]:
        """Its values."""
        return self.values


def _exists(path: pathlib.Path) -> ConfigurationError:
    return ConfigurationError(
        f"Recorder: expected a file that does not exist yet, found '{path}'; "
        "give another path, or move the old records away"
    )
