"""The loop of a run: ticks, evaluations, callbacks, states that are saved, and how it ended."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping

from mlo.callbacks.base import Stop, Watchers
from mlo.errors import Interrupted, described
from mlo.evaluations import Evaluations
from mlo.health import ProblemHealth
from mlo.interruptions import Interruptions
from mlo.progress import Progress, made
from mlo.records import MoveRecord, StartRecord, TickRecord
from mlo.run_result import RunResult, Status
from mlo.saving import Saving

Step = Callable[[Callable[[MoveRecord], None]], TickRecord]


@dataclasses.dataclass(frozen=True)
class Loop:
    """What a run is made of.

    Attributes:
        step: makes one tick.
        watchers: the callbacks.
        evaluations: what is to be evaluated.
        saving: saves states, where that is asked for.
        record_every: of how many tick records one is kept for the result.
        health: how the problems have fared so far.
    """

    step: Step
    watchers: Watchers
    evaluations: Evaluations
    saving: Saving
    record_every: int
    health: Callable[[], Mapping[str, ProblemHealth]]

    def run(self, start: StartRecord, progress: Progress) -> RunResult:
        """Run until `progress`, which is kept up to date, has ended.

        Callbacks hear of everything, and always of the end.
        """
        started = time.perf_counter() - progress.seconds
        records: list[TickRecord] = []
        status, reason = Status.FAILED, ""
        signals = Interruptions(self.saving.active)
        try:
            self.watchers.start(start)
            with signals:
                while progress.ended is None:
                    record = self.saving.guarded(self.step, self._on_move, signals)
                    if progress.done % self.record_every == 0:
                        records.append(record)
                    self._look(record, progress)
                    progress.seconds = time.perf_counter() - started
                    self.saving.after(record.tick, progress, self.watchers, signals)
            status, reason = progress.ended
        except BaseException as error:
            status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
            reason = described(error)
            raise
        finally:
            seconds = time.perf_counter() - started
            found = tuple(records), tuple(progress.evaluations), self.health()
            result = RunResult(status, reason, progress.done, seconds, *found)
            self.watchers.end(result)
        if signals.received is not None:  # it came when there was nothing left to interrupt
            signal.raise_signal(signals.received)
        return result

    def _on_move(self, record: MoveRecord) -> None:
        self.watchers.tell("on_move", record)

    def _look(self, record: TickRecord, progress: Progress) -> None:
        """Tell of a tick, make the evaluations that are due, and see whether that was the end."""
        progress.done += 1
        stops = self.watchers.tell("on_tick", record)
        stops += self._evaluate(progress, record.tick, due=True)
        last = progress.done == progress.total
        if stops or last:
            stops += self._evaluate(progress, record.tick, due=False)
        if stops:
            progress.ended = Status.STOPPED, stops[0].reason
        elif last:
            progress.ended = Status.COMPLETED, made(progress.total)

    def _evaluate(self, progress: Progress, tick: int, *, due: bool) -> list[Stop]:
        made = self.evaluations.make(tick, due=due)
        progress.evaluations.extend(made)
        return [stop for e in made for stop in self.watchers.tell("on_evaluation", e)]
