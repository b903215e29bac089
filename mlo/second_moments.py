"""The scale that an optimizer divides its steps by, for those that keep second moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.optimizer_groups import Group
from mlo.types import Tensors

Scale = Callable[[Group, Mapping[str, Any]], Tensor]


def scale_of(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> Tensors:
    """``sqrt(s) + eps`` for every parameter; ones where it has not been stepped yet."""
    scale = SCALES[type(optimizer)]
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    states = ((p, optimizer.state.get(p)) for p in params)
    return tuple(
        scale(groups[id(p)], state).detach() if state else torch.ones_like(p).detach()
        for p, state in states
    )


def adam(group: Group, state: Mapping[str, Any]) -> Tensor:
    """Adam and AdamW: s / (1 - b2^t), or the largest so far with `amsgrad`."""
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    correction = 1 - group["betas"][1] ** state["step"]
    scale: Tensor = second.sqrt() / correction**0.5 + group["eps"]
    return scale


def rmsprop(group: Group, state: Mapping[str, Any]) -> Tensor:
    """RMSprop: s, less the squared mean gradient where it is `centered`."""
    second = state["square_avg"]
    if group["centered"]:
        # Rounding may leave a variance of zero below it.
        second = (second - state["grad_avg"].square()).clamp(min=0.0)
    scale: Tensor = second.sqrt() + group["eps"]
    return scale


SCALES: dict[type[torch.optim.Optimizer], Scale] = {
    torch.optim.Adam: adam,
    torch.optim.AdamW: adam,
    torch.optim.RMSprop: rmsprop,
}
