"""The seam for everything that watches a run."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mlo.errors import DeclarationError, ResumeWarning, listed, nearest
from mlo.records import (
    CheckpointRecord,
    EvaluationRecord,
    MoveRecord,
    StartRecord,
    TickRecord,
)
from mlo.run_result import RunResult


@dataclasses.dataclass(frozen=True)
class Stop:
    """Returned by a callback to end the run after the present tick, with the reason."""

    reason: str


class Callback:
    """Watches a run; override what is of interest.

    Any object that has some of these methods will do as well; those it lacks are not called.
    Every method is given a read-only record. `on_tick` and `on_evaluation` may return a `Stop`.
    `on_end` is called however the run ended; where `on_start` was reached, it always follows.

    What a callback has to remember when a run is resumed it returns from `state_dict`, as plain
    values (tensors, numbers, words and containers of these); `load_state_dict` is then called
    before `on_start`, and `StartRecord.done` says how many ticks were made before.

    What it has to say in a few words, such as what a search has found so far, it returns from
    `line`; the progress of a recipe shows it, and `Console(beside=[callback])` does elsewhere.
    """

    def on_start(self, record: StartRecord) -> None:
        """Called before the first tick."""

    def on_move(self, record: MoveRecord) -> None:
        """Called after each real move."""

    def on_tick(self, record: TickRecord) -> Stop | None:
        """Called after each tick."""

    def on_evaluation(self, record: EvaluationRecord) -> Stop | None:
        """Called after each evaluation."""

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        """Called after the state of the run was saved."""

    def on_end(self, result: RunResult) -> None:
        """Called once, when the run is over."""

    def line(self) -> str | None:
        """What the progress shows below the losses now; None for nothing.

        Called only when the progress is drawn, a few times a second at most, so it may read from
        the device. Plain lines repeat it only when it has changed.
        """
        return None


class Watchers:
    """The callbacks of one run, told of everything in their order.

    Raises:
        DeclarationError: an object has none of the methods of `Callback`.
    """

    def __init__(self, callbacks: Sequence[object]) -> None:
        hooks = [name for name in vars(Callback) if name.startswith("on_")]
        if not isinstance(callbacks, Sequence):
            raise DeclarationError(
                "Engine.run(callbacks=...) must be a list, got "
                f"{type(callbacks).__name__}; write [callback]"
            )
        for callback in callbacks:
            if isinstance(callback, type):
                raise DeclarationError(
                    f"Engine.run(callbacks=...) takes objects, got the class {callback.__name__}; "
                    f"write {callback.__name__}(...)"
                )
            for name in dir(callback):
                hint = nearest(name, hooks)
                if name.startswith("on_") and name not in hooks and hint:
                    raise DeclarationError(
                        f"Engine.run(callbacks=...): {type(callback).__name__} has a method "
                        f"'{name}', which would never be called{hint}"
                    )
            if not any(callable(getattr(callback, hook, None)) for hook in hooks):
                own = [name for name in dir(callback) if not name.startswith("_")]
                typo = next((hint for name in own if (hint := nearest(name, hooks))), "")
                raise DeclarationError(
                    f"Engine.run(callbacks=...): {type(callback).__name__} has none of the methods "
                    f"{listed(hooks)}{typo}; derive it from mlo.Callback"
                )
        self._callbacks = tuple(callbacks)
        self._started: list[object] = []

    def state_dict(self) -> dict[str, Any]:
        """Key of a callback -> what it wants to remember, for those that do."""
        return {key: callback.state_dict() for key, callback in self._remembering().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remind all callbacks; those that were not there begin anew.

        Warns:
            ResumeWarning: a callback that was not there when the state was saved, or is not now.
        """
        present = self._remembering()
        for key, callback in present.items():
            if key in state:
                callback.load_state_dict(state[key])
        for key in {**present, **state}:
            if not (key in present and key in state):
                word = "begins anew: it was not" if key in present else "is gone: it was"
                text = f"callback {key} {word} there when the state was saved"
                warnings.warn(text, ResumeWarning, stacklevel=5)

    def _remembering(self) -> dict[str, Any]:
        """Class and number of its kind -> callback, for those with a state."""
        found: dict[str, Any] = {}
        for callback in self._callbacks:
            if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
                kind = type(callback).__name__
                number = sum(key.partition(" ")[0] == kind for key in found)
                found[f"{kind} {number}"] = callback
        return found

    def start(self, record: StartRecord) -> None:
        """Tell all of the start, and remember whom the end will have to be told."""
        for callback in self._callbacks:
            self._started.append(callback)
            _call(callback, "on_start", record)

    def tell(self, hook: str, record: object) -> list[Stop]:
        """Call one method of all; return the wishes to stop."""
        answers = [_call(callback, hook, record) for callback in self._callbacks]
        return [answer for answer in answers if isinstance(answer, Stop)]

    def end(self, result: RunResult) -> None:
        """Tell those that were told of the start, all of them, whatever one of them raises."""
        with contextlib.ExitStack() as stack:
            for callback in reversed(self._started):  # a stack is left from its top
                stack.callback(_call, callback, "on_end", result)


def _call(callback: object, hook: str, record: object) -> Any:
    method = getattr(callback, hook, None)
    return None if method is None else method(record)
