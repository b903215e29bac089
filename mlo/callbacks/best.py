"""The best value of a metric so far."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

from mlo.errors import ConfigurationError, listed, nearest
from mlo.records import (
    EvaluationRecord,
)
from mlo.run_result import RunResult, Status

Mode = Literal["min", "max"]
"""Whether smaller or larger values of a metric are better."""


class Best:
    """Follows one metric of one evaluation.

    Args:
        evaluation: name of the evaluation.
        metric: name of the metric among those it returns.
        mode: `"max"` where larger is better, `"min"` where smaller is.

    Attributes:
        record: the best evaluation so far; None before the first with a number.
    """

    def __init__(self, evaluation: str, metric: str, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(
                f"mode: expected 'min' or 'max', got {mode!r}; "
                "use 'max' for an accuracy and 'min' for a loss"
            )
        self.evaluation = evaluation
        self.metric = metric
        self.mode = mode
        self.record: EvaluationRecord | None = None
        self._seen = False

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation so far, as plain values."""
        return {"seen": self._seen, "record": self.record and self.record.plain()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that as the best so far."""
        record = state["record"]
        self._seen = state["seen"]
        self.record = None if record is None else EvaluationRecord.from_plain(record)

    def follows(self, record: EvaluationRecord) -> bool:
        """Tell whether the record is of the evaluation in question."""
        self._seen = self._seen or record.name == self.evaluation
        return record.name == self.evaluation

    def warn_if_unseen(self, result: RunResult) -> None:
        """Warn where a whole run has passed without the evaluation, which points to a typo."""
        if not self._seen and result.status is Status.COMPLETED:
            names = dict.fromkeys(record.name for record in result.evaluations)
            warnings.warn(
                f"no evaluation is called '{self.evaluation}' (evaluations of the run: "
                f"{listed(names)}){nearest(self.evaluation, names)}; nothing was watched",
                stacklevel=3,
            )

    def improved(self, record: EvaluationRecord, *, by: float = 0.0) -> bool:
        """Take the record if it is better than the best by more than `by`, and say so.

        NaN is better than nothing and nothing is better than NaN: it never counts.

        Raises:
            ConfigurationError: the evaluation does not return the metric.
        """
        value = self._value(record)
        if math.isnan(value):
            return False
        if self.record is not None:
            gain = value - self._value(self.record)
            if not (gain if self.mode == "max" else -gain) > by:
                return False
        self.record = record
        return True

    def _value(self, record: EvaluationRecord) -> float:
        try:
            return float(record.metrics[self.metric])
        except KeyError:
            raise ConfigurationError(
                f"metric: expected one that the evaluation '{record.name}' returns "
                f"({listed(record.metrics)}), got '{self.metric}'"
                f"{nearest(self.metric, record.metrics)}"
            ) from None
