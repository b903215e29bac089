"""The one place that calls autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlo.errors import CheckpointingError, EvaluationError
from mlo.guards import (
    check_twice_differentiable,
    checkpointing_message,
    double_backward_error,
)
from mlo.types import PartialTensors


def differentiate(
    problem: str,
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> PartialTensors:
    """``torch.autograd.grad`` with `None` where nothing depends, and with typed errors.

    Raises:
        DoubleBackwardError: an operation has no second derivative.
        CheckpointingError: the loss uses reentrant activation checkpointing.
    """
    if cotangents is None:
        cotangents = [torch.ones_like(o) for o in outputs if o is not None]
    pairs = zip(outputs, cotangents, strict=True)
    active = [(o, v) for o, v in pairs if o is not None and o.requires_grad]
    leaves = [x for x in inputs if x.requires_grad]
    if not active or not leaves:
        return (None,) * len(inputs)
    try:
        found = torch.autograd.grad(
            [o for o, _ in active],
            leaves,
            [v for _, v in active],
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
        )
    except RuntimeError as error:
        translated = _translated(error, problem)
        if translated is None:
            raise
        raise translated from error
    if create_graph:
        check_twice_differentiable(problem, [o for o, _ in active], leaves, found)
    grads = iter(found)
    return tuple(next(grads) if x.requires_grad else None for x in inputs)


def _translated(error: RuntimeError, problem: str) -> EvaluationError | None:
    text = str(error)
    if "torch.utils.checkpoint is incompatible" in text:
        return CheckpointingError(checkpointing_message(problem), problem=problem)
    if "derivative" in text and ("is not implemented" in text or "not differentiable" in text):
        return double_backward_error(problem, text)
    return None
