"""Saving the state of a run between two ticks, and taking it up again."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlo.callbacks.base import Watchers
from mlo.checkpoints import Checkpoints
from mlo.engine_state import check_state, engine_state, load_engine_state
from mlo.errors import CheckpointError, Interrupted, NonfiniteError, ResumeWarning
from mlo.files import make_folder, writing
from mlo.interruptions import Interruptions
from mlo.progress import Progress
from mlo.records import TickRecord

if TYPE_CHECKING:
    from mlo.engine import Engine


_INCIDENTS = 3
"""Of how many ticks that met a NaN the files are kept: the last."""


def _age(path: pathlib.Path) -> float:
    return path.stat().st_mtime


class Saving:
    """Saves the states of one run; does nothing where none are asked for.

    Args:
        engine: whose.
        checkpoints: where to and how often.
    """

    def __init__(self, engine: Engine, checkpoints: Checkpoints | None) -> None:
        self.engine = engine
        self.checkpoints = checkpoints
        self.active = checkpoints is not None
        self._seen = engine.incident
        if checkpoints is not None:
            checkpoints.begin()

    def resumed(
        self, watchers: Watchers, ticks: int | None, epochs: int | None, *, resume: bool
    ) -> Progress | None:
        """Put engine and callbacks where the newest state has them; `None` where there is none.

        Args:
            watchers: the callbacks.
            ticks: the length of the whole run, or `None`.
            epochs: the same in epochs, or `None`.
            resume: whether the run is to go on.

        Raises:
            CheckpointError: it is of another program, all states are damaged, there are some
                and the run is not to be resumed, or this program's state cannot be saved.
            DeclarationError: the run is longer already.
        """
        if self.checkpoints is None:
            return None
        self.engine.state_dict()  # what cannot be saved is to be known at once
        found = self.checkpoints.taken_up()
        if found is None:
            return None
        if not resume:
            raise CheckpointError(
                f"Engine.run(checkpoints=...): '{self.checkpoints.path}' holds the states of an "
                "earlier run, which this one would replace; go on with it by resume=True, or "
                "choose another folder"
            )
        for sentence in found.damaged:
            warnings.warn(sentence, ResumeWarning, stacklevel=4)
        progress = Progress.from_plain(found.state.get("run", {}))
        progress.towards(ticks, epochs)
        other = self.checkpoints.other_versions
        check_state(self.engine, found.state.get("engine", {}), other_versions=other)
        watchers.load_state_dict(found.state.get("callbacks", {}))
        load_engine_state(self.engine, found.state["engine"], other_versions=other)
        return progress

    def guarded(
        self, step: Callable[..., TickRecord], on_move: Callable[..., None], signals: Interruptions
    ) -> TickRecord:
        """Make a tick, and save what it took to make a move that met a NaN or an infinity.

        A tick that fails after a signal was interrupted: workers that load batches may hear it too.

        Raises:
            Interrupted: that was so.
        """
        try:
            record = step(on_move)
            self._keep_incident()
            return record
        except NonfiniteError as error:
            path = self._keep_incident()
            if path is not None:
                error.args = (f"{error}. To make that move again: mlo.replay(engine, '{path}')",)
            raise
        except Exception as error:
            if signals.received is None or self.checkpoints is None:
                raise
            place, advice = self.checkpoints.path, self.checkpoints.advice
            raise Interrupted(
                f"stopped by {signals.received.name}; the tick could not be finished ({error}), so "
                f"that the last state in '{place}' counts: {advice}",
                signals.received,
            ) from error

    def _keep_incident(self) -> pathlib.Path | None:
        """Save the incident of the tick, where there was one; return where."""
        incident = self.engine.incident
        if self.checkpoints is None or incident is None or incident is self._seen:
            return None
        self._seen = incident
        folder = self.checkpoints.path
        path = folder / f"nonfinite-tick-{incident.tick}.pt"
        try:
            with writing(path, CheckpointError):
                make_folder(folder)
            incident.save(path)
            with writing(folder, CheckpointError):
                for old in sorted(folder.glob("nonfinite-tick-*.pt"), key=_age)[:-_INCIDENTS]:
                    old.unlink()
        except CheckpointError as error:  # which must not hide what happened
            warnings.warn(
                f"nothing was saved to replay tick {incident.tick}: {error}", stacklevel=6
            )
            return None
        return path

    def after(
        self, tick: int, progress: Progress, watchers: Watchers, signals: Interruptions
    ) -> None:
        """Save after a tick, where that is due, the run has ended, or a signal has come.

        Raises:
            CheckpointError: the state cannot be saved.
            Interrupted: a signal has come, and the run has not ended by itself.
        """
        if self.checkpoints is None:
            return
        interrupted = signals.received is not None
        if progress.ended is not None or interrupted or self.checkpoints.due(tick):
            record = self.checkpoints.save(lambda: self._state(progress, watchers), tick)
            watchers.tell("on_checkpoint", record)
        if signals.received is not None and progress.ended is None:
            place, advice = self.checkpoints.path, self.checkpoints.advice
            raise Interrupted(
                f"stopped by {signals.received.name} after {progress.done} of {progress.total} "
                f"ticks; the state is saved in '{place}': {advice}",
                signals.received,
            )

    def _state(self, progress: Progress, watchers: Watchers) -> Mapping[str, Any]:
        return {
            "engine": engine_state(self.engine),
            "run": progress.plain(),
            "callbacks": watchers.state_dict(),
        }
