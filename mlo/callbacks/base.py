"""The seam for everything that watches a run."""

from __future__ import annotations

import dataclasses

from mlo.records import EvaluationRecord, MoveRecord, RunResult, StartRecord, TickRecord


@dataclasses.dataclass(frozen=True)
class Stop:
    """Returned by a callback to end the run after the present tick, with the reason."""

    reason: str


class Callback:
    """Watches a run; override what is of interest.

    Every method is given a read-only record. `on_tick` and `on_evaluation` may return a `Stop`.
    `on_end` is called however the run ended; where `on_start` was reached, it always follows.
    """

    def on_start(self, record: StartRecord) -> None:
        """Called before the first tick."""

    def on_move(self, record: MoveRecord) -> None:
        """Called after each real move."""

    def on_tick(self, record: TickRecord) -> Stop | None:
        """Called after each tick."""

    def on_evaluation(self, record: EvaluationRecord) -> Stop | None:
        """Called after each evaluation."""

    def on_end(self, result: RunResult) -> None:
        """Called once, when the run is over."""
