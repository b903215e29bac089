"""When a run saves its state, and where."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from mlo.checkpoint_folder import CheckpointFolder, Found
from mlo.errors import ConfigurationError
from mlo.records import CheckpointRecord


class Checkpoints:
    """Saves the state of a run every so often, and when it is interrupted or ends.

    ::

        engine.run(1000, checkpoints=mlo.Checkpoints("states"), resume=True)

    goes on where the last run of this folder was cut off, or begins where there was none. The
    state holds the engine, the callbacks and how far the run is, so that it goes on as if
    nothing had happened. While a run saves its states, SIGTERM and Ctrl-C wait for the end of the
    tick and for the state to be saved; a second one does not.

    Args:
        folder: where to; made when something is written.
        every: save after every n-th tick, counted from the engine's first.
        seconds: save when so many seconds have passed since the last time; 60 where neither is
            given. The clock decides when, and never what comes out of the run.
        keep: how many states to keep, the newest.
        extra: plain values that are saved with each state (see `mlo.read_checkpoint`).
        advice: how to go on, for the message of an interruption.
        other_versions: take up a state although other versions of this library or of torch made
            it; the run then goes on, but not with the same bits.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | None = None,
        seconds: float | None = None,
        keep: int = 2,
        extra: Mapping[str, Any] | None = None,
        advice: str = "run it again with resume=True",
        other_versions: bool = False,
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
            if value is not None and wrong:
                raise ConfigurationError(
                    f"Checkpoints({name}=...): expected a whole number of at least 1, got {value!r}"
                )
        if seconds is not None and not seconds >= 0:
            raise ConfigurationError(
                f"Checkpoints(seconds=...): expected at least 0 seconds, got {seconds!r}"
            )
        self.every = every
        self.seconds = 60.0 if every is None and seconds is None else seconds
        self.extra = dict(extra or {})
        self.advice = advice
        self.other_versions = other_versions
        self._folder = CheckpointFolder(pathlib.Path(folder), keep=keep)
        self._last = time.monotonic()
        self._found: Found | None = None

    @property
    def path(self) -> pathlib.Path:
        """The folder."""
        return self._folder.path

    def begin(self) -> None:
        """The clock starts."""
        self._last = time.monotonic()

    def due(self, tick: int) -> bool:
        """Whether to save after `tick`, counted from 0."""
        if self.every is not None and (tick + 1) % self.every == 0:
            return True
        return self.seconds is not None and time.monotonic() - self._last >= self.seconds

    def newest(self) -> Found | None:
        """The newest state that is whole; `None` where there never was one.

        It is read once, and remembered until a run takes it up.

        Raises:
            CheckpointError: all are damaged.
        """
        if self._found is None:
            self._found = self._folder.newest()
        return self._found

    def taken_up(self) -> Found | None:
        """The same, remembered no longer.

        Raises:
            CheckpointError: all are damaged.
        """
        found, self._found = self.newest(), None
        return found

    def save(self, make: Callable[[], Mapping[str, Any]], tick: int) -> CheckpointRecord:
        """Write what `make` returns as the state after `tick`.

        Raises:
            CheckpointError: it cannot be written; older states are as they were.
        """
        started = time.perf_counter()
        written = self._folder.write({**make(), "extra": self.extra}, tick)
        self._last = time.monotonic()
        seconds = time.perf_counter() - started
        return CheckpointRecord(tick, str(written.path), written.bytes, seconds)
