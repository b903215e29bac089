r"""The derivative D of an optimizer's update with respect to the gradient, for rules it knows.

The update is w' = w - update(gradient, state). D is diagonal: a number for SGD, a tensor of the
parameter's shape for Adam, AdamW and RMSprop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.optimizer_groups import Group, count, decoupled, scalar, sign

Rule = Callable[[Group, Mapping[str, Any], Tensor, Tensor], "Tensor | float"]


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
    kind = type(optimizer)
    rule = ADAPTED.get(kind, RULES[kind]) if adapted else RULES[kind]
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
        apart = isinstance(optimizer, torch.optim.AdamW) or decoupled(group)
        # `maximize` turns the sign of the gradient, not that of the decay.
        slope = scalar(group["lr"]) if apart else -d if group["maximize"] else d
        factors.append(1.0 - slope * decay)
    return tuple(factors)


def sgd(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor | float:
    r"""SGD: with buffer b' = mu b + (1 - tau) g (b' = g at first) the update is eta b'.

    Nesterov's update is eta (g + mu b'). Weight decay adds nothing to the derivative with respect
    to the gradient; `maximize` turns its sign.
    """
    factor: Tensor | float = sign(group) * scalar(group["lr"])
    if group["momentum"] == 0:
        return factor
    first = state.get("momentum_buffer") is None
    buffer = 1.0 if first else 1.0 - group["dampening"]
    return factor * float(1.0 + group["momentum"] * buffer if group["nesterov"] else buffer)


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Adam's moments after the coming step, for the gradient g that it sees.

    Attributes:
        sign: of the given gradient in g: -1 where it climbs.
        step: t of the coming step.
        past: b1 m.
        kept: b2 s, or with `amsgrad` an older s' where that is larger.
        bend: (1 - b2) g, half of ds'/dg; zero where an older s' is larger.
        first: m' = b1 m + (1 - b1) g.
        second: s' = b2 s + (1 - b2) g^2, or the older one.
    """

    sign: float
    step: Tensor | float
    past: Tensor
    kept: Tensor
    bend: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def after(cls, group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> _Moments:
        beta1, beta2 = map(scalar, group["betas"])
        turn, decay = sign(group), 0.0 if decoupled(group) else group["weight_decay"]
        g = _seen(turn, decay, param, grad)
        nothing = torch.zeros_like(g)
        step = count(state["step"]) + 1.0 if state else 1.0
        past = beta1 * state["exp_avg"] if state else nothing
        kept = beta2 * state["exp_avg_sq"] if state else nothing
        bend, second = (1 - beta2) * g, kept + (1 - beta2) * g * g
        if group["amsgrad"] and state:
            largest = state["max_exp_avg_sq"]
            new = second > largest
            kept, bend = torch.where(new, kept, largest), torch.where(new, bend, nothing)
            second = torch.maximum(second, largest)
        return cls(turn, step, past, kept, bend, past + (1 - beta1) * g, second)


def adam(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    r"""Adam and AdamW (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).

    With m' = b1 m + (1 - b1) g, s' = b2 s + (1 - b2) g^2, corrections k1 = 1 - b1^t,
    k2 = 1 - b2^t and d = sqrt(s' / k2) + eps the update is (eta / k1) m' / d, so

        D = (eta / k1) [ (1 - b1) / d - m' (1 - b2) g / (d^2 sqrt(s' k2)) ].

    Where s' = 0 every gradient so far was zero, and the second term vanishes with it.
    """
    beta1, beta2 = map(scalar, group["betas"])
    after = _Moments.after(group, state, param, grad)
    correction1, correction2 = 1 - beta1**after.step, 1 - beta2**after.step
    root = after.second.sqrt()
    scale = root / correction2**0.5 + group["eps"]
    turn = after.first * after.bend / (scale**2 * root * correction2**0.5)
    slope = (1 - beta1) / scale - torch.where(root > 0, turn, 0.0)
    derivative: Tensor = after.sign * (scalar(group["lr"]) / correction1) * slope
    return derivative.to(grad.dtype)


def adapted_adam(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    r"""Adam's D as SAMA has it (Choe et al., NeurIPS 2023): no corrections, eps under the cube.

        D = eta [ (1 - b1) b2 s - b1 (1 - b2) m g ] / (sqrt(s') + eps)^3

    With amsgrad, where an older s' is larger, the bracket is (1 - b1) s'. Up to eps this is
    k1 / sqrt(k2) times the derivative of Adam's update, see `adam`: 6.6 times it at most (t = 12),
    3.2 at t = 100 and 1 in the long run, for the default betas.
    """
    beta1 = scalar(group["betas"][0])
    after = _Moments.after(group, state, param, grad)
    root = after.second.sqrt()
    scale = root + group["eps"]
    # Three quotients one by one: a cube would underflow.
    slope = ((1 - beta1) * after.kept - after.past * after.bend) / scale / scale / scale
    derivative: Tensor = after.sign * scalar(group["lr"]) * torch.where(root > 0, slope, 0.0)
    return derivative.to(grad.dtype)


def adamw(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    """AdamW: weight decay acts on the parameter alone."""
    return adam({**group, "decoupled_weight_decay": True}, state, param, grad)


def adapted_adamw(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    """AdamW's D as SAMA has it."""
    return adapted_adam({**group, "decoupled_weight_decay": True}, state, param, grad)


def rmsprop(group: Group, state: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    r"""RMSprop (Tieleman and Hinton, 2012; centered: Graves, 2013).

    With s' = a s + (1 - a) g^2, the mean gradient m' = a m + (1 - a) g if centered, else m' = 0,
    r = sqrt(s' - m'^2) and d = r + eps the update is eta g / d, so

        D = eta [ 1 / d - g (1 - a) (g - m') / (d^2 r) ].

    Momentum, b' = mu b + g / d with update eta b', changes nothing. Where r = 0 no gradient has
    differed from m' so far, and the second term vanishes: D = eta / eps.
    """
    turned, keep = sign(group), group["alpha"]
    g = _seen(turned, group["weight_decay"], param, grad)
    second = state["square_avg"] if state else torch.zeros_like(g)
    second = (second * keep).addcmul(g, g, value=1 - keep)
    away = g
    if group["centered"]:
        mean = (state["grad_avg"] if state else torch.zeros_like(g)).lerp(g, 1 - keep)
        # As the optimizer writes it: what is left of the difference is rounding at times.
        second, away = second.addcmul(mean, mean, value=-1), g - mean
    root = second.sqrt()
    scale = root + group["eps"]
    turn = torch.where(root == 0, 0.0, (1 - keep) * g * away / (scale**2 * root))
    derivative: Tensor = turned * scalar(group["lr"]) * (1 / scale - turn)
    return derivative.to(grad.dtype)


def _seen(turn: float, decay: float, param: Tensor, grad: Tensor) -> Tensor:
    """The gradient as the update sees it: `maximize` turns its sign, not that of the decay."""
    return turn * grad + decay * param.detach() if decay else turn * grad


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
    torch.optim.RMSprop: rmsprop,
}
ADAPTED: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.Adam: adapted_adam,
    torch.optim.AdamW: adapted_adamw,
}
"""D as SAMA takes it, where that is another than the derivative of the update."""
