"""Keeping the weights of the best evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mlo.callbacks.base import Callback
from mlo.callbacks.best import Best, Mode
from mlo.errors import ConfigurationError
from mlo.records import (
    EvaluationRecord,
)
from mlo.run_result import RunResult


class KeepBest(Callback):
    """Keeps copies of modules as they were at the best evaluation, in host memory.

    Watch an evaluation on validation data. Weights chosen by their test score have been selected
    on the test data, and that score is no longer a test result.

    Several runs of one engine count as one; make a new object for another program.

    Args:
        evaluation: name of the evaluation, as given to `engine.run(evaluate=...)`.
        metric: the metric among those it returns.
        modules: name -> module to keep.
        mode: `"max"` where larger is better, `"min"` where smaller is.

    Raises:
        ConfigurationError: `mode` is unknown, there is no module, or, during the run, the
            evaluation does not return the metric.
    """

    def __init__(
        self,
        evaluation: str,
        metric: str,
        *,
        modules: Mapping[str, nn.Module],
        mode: Mode = "max",
    ) -> None:
        if not isinstance(modules, Mapping):
            raise ConfigurationError(
                f"KeepBest(modules=...): expected name -> module, got {type(modules).__name__}; "
                "write {'classifier': net}"
            )
        if not modules:
            raise ConfigurationError(
                "KeepBest(modules=...): expected at least one module, got none; "
                "name those to restore, such as {'classifier': net}"
            )
        self.modules = dict(modules)
        self.states: dict[str, dict[str, Any]] = {}
        self._best = Best(evaluation, metric, mode)

    @property
    def best(self) -> EvaluationRecord | None:
        """The best evaluation so far."""
        return self._best.record

    def state_dict(self) -> dict[str, Any]:
        """The weights that are kept, and of which evaluation they are."""
        return {"states": self.states, "best": self._best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep those."""
        self.states = state["states"]
        self._best.load_state_dict(state["best"])

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """Copy the modules if this evaluation is the best."""
        if self._best.follows(record) and self._best.improved(record):
            self.states = {name: _host_copy(module) for name, module in self.modules.items()}

    def on_end(self, result: RunResult) -> None:
        """Warn if the evaluation never took place."""
        self._best.warn_if_unseen(result)

    def restore(self) -> EvaluationRecord:
        """Load the kept weights back into the modules.

        Returns:
            The evaluation at which they were kept.

        Raises:
            ConfigurationError: nothing has been kept.
        """
        if self._best.record is None:
            raise ConfigurationError(
                f"KeepBest.restore(): expected a finished evaluation '{self._best.evaluation}', "
                "found none; give one of that name to engine.run(evaluate=...)"
            )
        for name, state in self.states.items():
            self.modules[name].load_state_dict(state)
        return self._best.record


def _host_copy(module: nn.Module) -> dict[str, Any]:
    # A copy of a tensor that is on the host already would otherwise be the tensor itself.
    return {
        name: value.detach().to("cpu", copy=True)
        if isinstance(value, Tensor)
        else copy.deepcopy(value)
        for name, value in module.state_dict().items()
    }
