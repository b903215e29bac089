"""Records of a run in a file, one line of JSON each."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, TextIO

from mlo.callbacks.base import Callback
from mlo.errors import ConfigurationError
from mlo.files import json_text
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
    with one recorder follow each other in its file.

    Args:
        path: file to create.
        every: write every n-th tick only, beside the last one; evaluations are all written.

    Raises:
        ConfigurationError: the file exists already, or `every` is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1) -> None:
        self.path = pathlib.Path(path)
        if self.path.exists():
            raise _exists(self.path)
        if every < 1:
            raise ConfigurationError(
                f"Recorder(every=...): expected at least 1, got {every}; 1 writes all ticks"
            )
        self.every = every
        self._file: TextIO | None = None
        self._created = False
        self._waiting: list[Callable[[], dict[str, Any]]] = []
        self._skipped: TickRecord | None = None
        self._due = 0.0

    def on_start(self, record: StartRecord) -> None:
        """Create the file, or continue that of an earlier run."""
        try:
            self._file = self.path.open("a" if self._created else "x", encoding="utf-8")
        except FileExistsError as error:
            raise _exists(self.path) from error
        except OSError as error:
            raise ConfigurationError(
                f"Recorder: cannot create '{self.path}': {error.strerror}; "
                "give a path in an existing folder that can be written to"
            ) from error
        self._created = True
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
            self._file.close()
            self._file = None

    def _add(self, plain: Callable[[], dict[str, Any]]) -> None:
        self._waiting.append(plain)
        if self._file is not None and time.monotonic() >= self._due:
            self._write(self._file)

    def _write(self, file: TextIO) -> None:
        waiting, self._waiting = self._waiting, []
        file.writelines(json_text(plain()) + "\n" for plain in waiting)
        file.flush()
        self._due = time.monotonic() + _FLUSH


def _exists(path: pathlib.Path) -> ConfigurationError:
    return ConfigurationError(
        f"Recorder: expected a file that does not exist yet, found '{path}'; "
        "give another path, or move the old records away"
    )
