"""What a run leaves behind."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

from mlo.errors import ConfigurationError
from mlo.health import ProblemHealth
from mlo.records import EvaluationRecord, TickRecord


class Status(enum.Enum):
    """How a run ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        status: how it ended.
        reason: the same in a sentence.
        ticks: ticks made in this run, those before it was resumed among them.
        seconds: wall-clock time of the run, that before it was resumed included.
        records: tick records, every `record_every`-th one; of a run that was resumed, those since.
        evaluations: evaluation records, in order; of a run that was resumed, all of them.
        health: problem -> how it fared, since the engine was built.
    """

    status: Status
    reason: str
    ticks: int
    seconds: float
    records: tuple[TickRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]
    health: Mapping[str, ProblemHealth] = dataclasses.field(default_factory=dict)

    def last(self, name: str) -> dict[str, float]:
        """Metrics of the last evaluation called `name`; empty where there was none."""
        found = [e for e in self.evaluations if e.name == name]
        return dict(found[-1].metrics) if found else {}

    def best(self, name: str, metric: str, *, mode: str = "max") -> EvaluationRecord | None:
        """The evaluation called `name` whose `metric` is largest (`mode="min"`: smallest).

        NaN never counts. Choose on validation data: the best of many looks at test data is not a
        test result.

        Raises:
            ConfigurationError: `mode` is neither of the two.
        """
        if mode not in ("min", "max"):
            raise ConfigurationError(
                f"RunResult.best(mode=...) must be 'min' or 'max', got {mode!r}; "
                "'max' suits an accuracy and 'min' a loss"
            )
        of_name = [e for e in self.evaluations if e.name == name and metric in e.metrics]
        found = [e for e in of_name if not math.isnan(e.metrics[metric])]
        pick = max if mode == "max" else min
        return pick(found, key=lambda e: e.metrics[metric]) if found else None

    def plain(self) -> dict[str, Any]:
        """The end of the run, ready for JSON (without the records, which have their own lines)."""
        end = {"kind": "end", "status": self.status.value, "reason": self.reason}
        health = {name: found.plain() for name, found in self.health.items()}
        return {**end, "ticks": self.ticks, "seconds": self.seconds, "health": health}
