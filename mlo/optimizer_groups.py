"""Settings and counters of torch's optimizers, in a form that formulas can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

Group: TypeAlias = Mapping[str, Any]
"""A parameter group, or its settings."""


def sign(group: Group) -> float:
    """What the gradient is multiplied by: -1 where the optimizer climbs."""
    return -1.0 if group["maximize"] else 1.0


def decoupled(group: Group) -> bool:
    """Whether weight decay acts on the parameter alone."""
    return bool(group.get("decoupled_weight_decay", False))


def scalar(setting: Tensor | float) -> Any:
    """A setting that may be a tensor of one element, of any shape, as one of none."""
    return setting.detach().reshape(()) if isinstance(setting, Tensor) else setting


def count(step: Tensor | float) -> Tensor | float:
    """A counter of steps, read where that does not wait for a device."""
    if isinstance(step, Tensor) and step.device.type != "cpu":
        return step.double()
    return float(step)
