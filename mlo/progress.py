"""How far a run is: what a checkpoint holds beside the engine and the callbacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlo.errors import CheckpointError, DeclarationError
from mlo.records import EvaluationRecord
from mlo.run_result import Status


def made(ticks: int) -> str:
    """Why a run that made all its ticks has ended."""
    return f"all {ticks} ticks were made"


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
        total: ticks that it is to make.
        epochs: the epochs that these complete, where they were asked for instead.
        done: ticks made.
        seconds: how long it has taken, until it was cut off.
        evaluations: those made so far.
        ended: how it ended and why, once it has.
    """

    total: int
    epochs: int | None = None
    done: int = 0
    seconds: float = 0.0
    evaluations: list[EvaluationRecord] = dataclasses.field(default_factory=list)
    ended: tuple[Status, str] | None = None

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        ended = None if self.ended is None else (self.ended[0].value, self.ended[1])
        evaluations = [e.plain() for e in self.evaluations]
        return {**vars(self), "evaluations": evaluations, "ended": ended}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Progress:
        """The inverse of `plain`.

        Raises:
            CheckpointError: they are no such values.
        """
        try:
            ended = plain["ended"]
            return cls(
                **{
                    **plain,
                    "evaluations": [EvaluationRecord.from_plain(e) for e in plain["evaluations"]],
                    "ended": None if ended is None else (Status(ended[0]), ended[1]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "checkpoint: expected how far a run is, found none; Engine.load takes a state "
                "that Engine.save made, Engine.run(resume=True) one of a run"
            ) from error

    def towards(self, ticks: int | None, epochs: int | None) -> None:
        """Go on to another number of ticks, or to the same number of epochs.

        Raises:
            DeclarationError: epochs other than those that the run began with, since they are
                counted from where it began; or fewer ticks than were made.
        """
        if epochs is not None and epochs != self.epochs:
            began = f"epochs={self.epochs}" if self.epochs else f"ticks={self.total}"
            raise DeclarationError(
                f"Engine.run(epochs={epochs}, resume=True): the run began with {began}; give "
                "that again, or ticks= for its whole length"
            )
        if ticks is None:
            return
        if ticks < self.done:
            raise DeclarationError(
                f"Engine.run(ticks={ticks}, resume=True): the run has made {self.done} ticks "
                "already; ticks= counts from its beginning"
            )
        if ticks != self.total and self.ended is not None and self.ended[0] is Status.COMPLETED:
            self.ended = None
        self.total, self.epochs = ticks, None
        if ticks == self.done and self.ended is None:  # cut off just where it is to end now
            self.ended = Status.COMPLETED, made(ticks)
