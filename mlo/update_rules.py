r"""The derivative D of an optimizer's update with respect to the gradient.

The update is w' = w - update(gradient, state). D is diagonal: a number for SGD, and for the others,
whose steps are written once in `mlo.optimizer_steps`, a tensor of the parameter's shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.optimizer_groups import Group, decoupled, scalar, sign
from mlo.optimizer_steps import GRADIENT, PARAMETER, recorded_steps


def update_derivative(
    optimizer: torch.optim.Optimizer, params: Sequence[Tensor], *, adapted: bool = False
) -> tuple[Tensor | float, ...]:
    """D for every parameter, for the step that `optimizer` is about to make from `p.grad`.

    Zero where there is no gradient: the optimizer leaves such a parameter alone.

    Args:
        optimizer: before its step.
        params: whose D is wanted.
        adapted: D as SAMA takes it, which for Adam and AdamW is not the derivative itself.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    if isinstance(optimizer, torch.optim.SGD):
        return tuple(
            0.0 if p.grad is None else sgd(groups[id(p)], optimizer.state.get(p, {}))
            for p in params
        )
    if adapted and isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return tuple(
            0.0
            if p.grad is None
            else adapted_adam(optimizer, groups[id(p)], optimizer.state.get(p, {}), p, p.grad)
            for p in params
        )
    return tuple(
        0.0
        if step is None or p.grad is None
        else -step.linearized(p, p.grad).partials[PARAMETER][GRADIENT]
        for step, p in zip(recorded_steps(optimizer, params, 1.0), params, strict=True)
    )


def carried(
    optimizer: torch.optim.Optimizer,
    params: Sequence[Tensor],
    derivative: Sequence[Tensor | float],
) -> tuple[Tensor | float, ...]:
    """dw'/dw of the coming step at a fixed gradient: 1 but for weight decay.

    With decay mu the update sees g + mu w, so 1 - D mu; a decoupled one multiplies by 1 - eta mu.
    One where there is no gradient: the optimizer leaves such a parameter alone.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    factors: list[Tensor | float] = []
    for p, d in zip(params, derivative, strict=True):
        group = groups[id(p)]
        decay = 0.0 if p.grad is None else group["weight_decay"]
        # `maximize` turns the sign of the gradient, not that of the decay.
        slope = scalar(group["lr"]) if _apart(optimizer, group) else sign(group) * d
        factors.append(1.0 - slope * decay)
    return tuple(factors)


def sgd(group: Group, state: Mapping[str, Any]) -> Tensor | float:
    r"""SGD: with buffer b' = mu b + (1 - tau) g (b' = g at first) the update is eta b'.

    Nesterov's update is eta (g + mu b'). Weight decay adds nothing to the derivative with respect
    to the gradient; `maximize` turns its sign. A number, since this is taken at every move.
    """
    factor: Tensor | float = sign(group) * scalar(group["lr"])
    if group["momentum"] == 0:
        return factor
    first = state.get("momentum_buffer") is None
    buffer = 1.0 if first else 1.0 - group["dampening"]
    return factor * float(1.0 + group["momentum"] * buffer if group["nesterov"] else buffer)


def adapted_adam(
    optimizer: torch.optim.Optimizer,
    group: Group,
    state: Mapping[str, Any],
    param: Tensor,
    grad: Tensor,
) -> Tensor:
    r"""Adam's D as SAMA has it (Choe et al., NeurIPS 2023): no corrections, eps under the cube.

        D = eta [ (1 - b1) b2 s - b1 (1 - b2) m g ] / (sqrt(s') + eps)^3

    With amsgrad, where an older s' is larger, the bracket is (1 - b1) s'. Up to eps this is
    k1 / sqrt(k2) times the derivative of Adam's update: 6.6 times it at most (t = 12), 3.2 at
    t = 100 and 1 in the long run, for the default betas.
    """
    beta1, beta2 = map(scalar, group["betas"])
    decay = 0.0 if _apart(optimizer, group) else group["weight_decay"]
    g = sign(group) * grad + decay * param.detach()
    nothing = torch.zeros_like(g)
    past, kept = beta1 * state.get("exp_avg", nothing), beta2 * state.get("exp_avg_sq", nothing)
    bend = (1 - beta2) * g  # half of ds'/dg
    second = kept + bend * g
    if group["amsgrad"]:
        largest = state.get("max_exp_avg_sq", nothing)
        older = second <= largest
        kept, bend = torch.where(older, largest, kept), torch.where(older, nothing, bend)
        second = torch.maximum(second, largest)
    root = second.sqrt()
    scale = root + group["eps"]
    # Three quotients one by one: a cube would underflow.
    slope = ((1 - beta1) * kept - past * bend) / scale / scale / scale
    derivative: Tensor = sign(group) * scalar(group["lr"]) * torch.where(root > 0, slope, 0.0)
    return derivative.to(grad.dtype)


def _apart(optimizer: torch.optim.Optimizer, group: Group) -> bool:
    """Whether weight decay acts on the parameter alone: always with AdamW, else by its setting."""
    return isinstance(optimizer, torch.optim.AdamW) or decoupled(group)
