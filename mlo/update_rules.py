r"""The derivative D of an optimizer's update with respect to the gradient, for rules it knows.

The update is w' = w - update(gradient, state). D is diagonal: a number for SGD, a tensor of the
parameter's shape for Adam and AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Group = Mapping[str, Any]
Rule = Callable[[Group, Mapping[str, Any], Tensor, Tensor], "Tensor | float"]


def knows(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the derivative of this optimizer's update is known (exact class, no subclass)."""
    return type(optimizer) in RULES


def known_names() -> list[str]:
    """Names of the optimizers whose rules are known."""
    return [rule.__name__ for rule in RULES]


def update_derivative(
    optimizer: torch.optim.Optimizer, params: Sequence[Tensor]
) -> tuple[Tensor | float, ...]:
    """D for every parameter, for the step that `optimizer` is about to make from `p.grad`.

    Zero where there is no gradient: the optimizer leaves such a parameter alone.
    """
    rule = RULES[type(optimizer)]
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return tuple(
        0.0 if p.grad is None else rule(groups[id(p)], optimizer.state.get(p, {}), p, p.grad)
        for p in params
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
        decoupled = isinstance(optimizer, torch.optim.AdamW) or _decoupled(group)
        # `maximize` turns the sign of the gradient, not that of the decay.
        slope = group["lr"] if decoupled else -d if group["maximize"] else d
        factors.append(1.0 - slope * decay)
    return tuple(factors)


def sgd(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor | float:
    r"""SGD: with buffer b' = mu b + (1 - tau) g (b' = g at first) the update is eta b'.

    Nesterov's update is eta (g + mu b'). Weight decay adds nothing to the derivative with respect
    to the gradient; `maximize` turns its sign.
    """
    factor = -group["lr"] if group["maximize"] else group["lr"]
    if group["momentum"] == 0:
        return factor  # type: ignore[no-any-return]
    first = state.get("momentum_buffer") is None
    buffer = 1.0 if first else 1.0 - group["dampening"]
    return factor * (1.0 + group["momentum"] * buffer if group["nesterov"] else buffer)  # type: ignore[no-any-return]


def adam(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    r"""Adam and AdamW (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).

    With m' = b1 m + (1 - b1) g, s' = b2 s + (1 - b2) g^2, corrections k1 = 1 - b1^t,
    k2 = 1 - b2^t and d = sqrt(s' / k2) + eps the update is (eta / k1) m' / d, so

        D = (eta / k1) [ (1 - b1) / d - m' (1 - b2) g / (d^2 sqrt(s' k2)) ].

    Where s' = 0 every gradient so far was zero, and the second term vanishes with it.
    """
    beta1, beta2 = group["betas"]
    sign = -1.0 if group["maximize"] else 1.0
    g = sign * grad
    if group["weight_decay"] and not _decoupled(group):
        g = g + group["weight_decay"] * param.detach()
    step = float(state["step"]) + 1 if state else 1.0
    first = beta1 * state["exp_avg"] + (1 - beta1) * g if state else (1 - beta1) * g
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * g * g if state else (1 - beta2) * g * g
    slope = (1 - beta2) * g
    if group["amsgrad"] and state:
        largest = state["max_exp_avg_sq"]
        slope = torch.where(second > largest, slope, torch.zeros_like(slope))
        second = torch.maximum(second, largest)
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    root = second.sqrt()
    scale = root / correction2**0.5 + group["eps"]
    bend = torch.where(root > 0, first * slope / (scale**2 * root * correction2**0.5), 0.0)
    derivative: Tensor = sign * (group["lr"] / correction1) * ((1 - beta1) / scale - bend)
    return derivative


def _decoupled(group: Group) -> bool:
    return bool(group.get("decoupled_weight_decay", False))


def adamw(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    """AdamW: weight decay acts on the parameter alone."""
    return adam({**group, "decoupled_weight_decay": True}, state, param, grad)


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
}
