"""The loss of a problem as a function of tensors: the mean over the micro-batches of a setting."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.errors import LossError
from mlo.evaluator import Evaluator
from mlo.guards import checked_scalar
from mlo.once import recorded
from mlo.places import Buffers
from mlo.setting import Setting
from mlo.types import Values


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one evaluation of a loss gives.

    Attributes:
        loss: with its graph, 0-dim.
        value: the same number without it, for records.
        metrics: what the loss returned beside its value, without graphs.
        buffers: key of a place -> buffer as the evaluation left it.
    """

    loss: Tensor
    value: Tensor
    metrics: Mapping[str, Tensor | float]
    buffers: Buffers


class Objective:
    """The loss of one problem, evaluated at any tensors in any setting."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.reads = evaluator.reads

    def __call__(self, values: Values, setting: Setting, *, replay: bool = False) -> Evaluation:
        """Evaluate the loss.

        Args:
            values: problem -> tensors that stand for its variables.
            setting: under what.
            replay: draw again the random numbers of the setting, in its mode, and leave no trace.

        Raises:
            LossError: the loss is not a scalar tensor.
            ClosureError: it uses live parameters of a declared problem.
            CheckpointingError: it uses activation checkpointing.
            EvaluationError: it writes into parameters.
        """
        parts: list[Evaluation] = []
        self.visit(values, setting, parts.append, replay=replay)
        return mean(parts)

    def visit(
        self,
        values: Values,
        setting: Setting,
        visitor: Callable[[Evaluation], None],
        *,
        replay: bool = False,
    ) -> None:
        """Evaluate the loss micro-batch by micro-batch, so that one graph at a time need live.

        Random numbers and buffers run on from one to the next, as they would in one pass.
        """
        buffers = setting.buffers
        with self.evaluator.replaying(setting) if replay else contextlib.nullcontext():
            for batch in setting.batches:
                returned, buffers = self.evaluator.call(values, batch, setting.tick, buffers)
                loss, metrics = self._split(returned)
                for tensor in (loss, *recorded()):
                    self.evaluator.check(tensor, values)
                visitor(Evaluation(loss, loss.detach().clone(), metrics, buffers))

    def _split(self, returned: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        problem = self.evaluator.problem
        pair = isinstance(returned, tuple) and len(returned) == 2
        loss, metrics = returned if pair else (returned, {})
        loss = checked_scalar(problem, loss, ", or (scalar, {metric: value})")
        if not isinstance(metrics, Mapping):
            raise LossError(
                f"problem '{problem}': its loss must return a scalar, or (scalar, "
                f"{{metric: value}}), got a scalar and a {type(metrics).__name__}; name the metric",
                problem=problem,
            )
        for key, metric in metrics.items():
            if not isinstance(metric, Tensor | int | float):
                raise LossError(
                    f"problem '{problem}': metric '{key}' of its loss must be a tensor or a "
                    f"number, got {type(metric).__name__} {metric!r}; leave it out or convert it",
                    problem=problem,
                )
        # Clones: a loss or metric may share memory with a parameter that moves on.
        own = {k: m.detach().clone() if isinstance(m, Tensor) else m for k, m in metrics.items()}
        return loss, own


def mean(parts: Sequence[Evaluation]) -> Evaluation:
    """The mean of the losses and of each metric; the buffers are those of the last part."""
    if len(parts) == 1:
        return parts[0]
    n = len(parts)
    metrics = {
        key: sum(part.metrics[key] for part in parts) / n
        for key in parts[0].metrics
        if all(key in part.metrics for part in parts)
    }
    loss = torch.stack([part.loss for part in parts]).mean()
    return Evaluation(loss, loss.detach().clone(), metrics, parts[-1].buffers)
