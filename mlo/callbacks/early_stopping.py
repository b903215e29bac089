"""Ending a run that gets no better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlo.callbacks.base import Callback, Stop
from mlo.callbacks.best import Best, Mode
from mlo.errors import ConfigurationError
from mlo.records import (
    EvaluationRecord,
)
from mlo.run_result import RunResult


class EarlyStopping(Callback):
    """Ends the run when a metric has not improved for a while.

    Watch an evaluation on validation data. Stopping where the test score is good selects on the
    test data, and the score at that point is no longer a test result.

    Several runs of one engine count as one; make a new object for another program.

    Args:
        evaluation: name of the evaluation, as given to `engine.run(evaluate=...)`.
        metric: the metric among those it returns.
        patience: evaluations in a row without improvement after which the run ends.
        mode: `"max"` where larger is better, `"min"` where smaller is.
        least: how much better than the best so far counts as an improvement.

    Raises:
        ConfigurationError: a setting is out of its range, or, during the run, the evaluation does
            not return the metric.
    """

    def __init__(
        self,
        evaluation: str,
        metric: str,
        *,
        patience: int = 5,
        mode: Mode = "max",
        least: float = 0.0,
    ) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ConfigurationError(
                "EarlyStopping(patience=...): expected a whole number of at least 1 evaluation, "
                f"got {patience!r}"
            )
        if not least >= 0:
            raise ConfigurationError(
                f"EarlyStopping(least=...): expected at least 0, got {least}; "
                "the direction is chosen by mode"
            )
        self.patience = patience
        self.least = least
        self._best = Best(evaluation, metric, mode)
        self._misses = 0

    @property
    def best(self) -> EvaluationRecord | None:
        """The best evaluation so far."""
        return self._best.record

    def state_dict(self) -> dict[str, Any]:
        """How long there has been no improvement."""
        return {"misses": self._misses, "best": self._best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._misses = state["misses"]
        self._best.load_state_dict(state["best"])

    def on_evaluation(self, record: EvaluationRecord) -> Stop | None:
        """Count the evaluations without improvement."""
        if not self._best.follows(record):
            return None
        if self._best.improved(record, by=self.least):
            self._misses = 0
            return None
        self._misses += 1
        if self._misses < self.patience:
            return None
        return Stop(self._reason())

    def on_end(self, result: RunResult) -> None:
        """Warn if the evaluation never took place."""
        self._best.warn_if_unseen(result)

    def _reason(self) -> str:
        metric = f"'{self._best.metric}' of '{self._best.evaluation}'"
        best = self._best.record
        since = (
            "and never was a number"
            if best is None
            else f"since tick {best.tick} ({best.metrics[self._best.metric]:.6g})"
        )
        return f"{metric} has not improved in {self._misses} evaluations, {since}"
