r"""Optimizer steps as functions of parameter, gradient and state, and how they are differentiated.

    (w', state') = rule(w, g, state)

entry by entry, so that every partial derivative is a diagonal. One step is then a small matrix of
diagonals, by which cotangents are pulled back and tangents pushed forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.optimizer_groups import Group, count, decoupled, scalar, sign
from mlo.vectors import leaves

PARAMETER, GRADIENT = "parameter", "gradient"
Named = Mapping[str, Tensor]
"""`PARAMETER`, `GRADIENT` or the name of a state -> tensor; what is absent is zero."""

StepRule = Callable[
    [Group, "Tensor | float", Tensor, Tensor, Named], tuple[Tensor, dict[str, Tensor]]
]
"""rule(settings, number of the step from 1, w, g, state) -> (w', state')."""


def sgd(
    group: Group, step: Tensor | float, w: Tensor, g: Tensor, state: Named
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""SGD: h = g + decay w, b' = mu b + (1 - tau) h (b' = h at first), w' = w - eta b'.

    Nesterov: w' = w - eta (h + mu b'). Source: Sutskever et al., ICML 2013, as torch has it.
    """
    h = sign(group) * g + group["weight_decay"] * w
    momentum = group["momentum"]
    if momentum == 0:
        return w - group["lr"] * h, {}
    before = state.get("momentum_buffer")
    buffer = h if before is None else momentum * before + (1.0 - group["dampening"]) * h
    update = h + momentum * buffer if group["nesterov"] else buffer
    return w - group["lr"] * update, {"momentum_buffer": buffer}


def adam(
    group: Group, step: Tensor | float, w: Tensor, g: Tensor, state: Named
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Adam and AdamW (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).

    m' = b1 m + (1 - b1) g, s' = b2 s + (1 - b2) g^2, w' = w - eta / k1 m' / (sqrt(s' / k2) + eps),
    with k = 1 - b^t. Decay adds mu w to g, a decoupled one takes eta mu w from w.
    """
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"]
    g = sign(group) * g
    if decoupled(group):
        w = w * (1.0 - group["lr"] * decay)
    else:
        g = g + decay * w
    zero = torch.zeros_like(w)
    first = beta1 * state.get("exp_avg", zero) + (1.0 - beta1) * g
    second = beta2 * state.get("exp_avg_sq", zero) + (1.0 - beta2) * g * g
    after, largest = {"exp_avg": first, "exp_avg_sq": second}, second
    if group["amsgrad"]:
        before = state.get("max_exp_avg_sq", zero)
        largest = after["max_exp_avg_sq"] = torch.where(second > before, second, before)
    scale = _root(largest) / (1.0 - beta2**step) ** 0.5 + group["eps"]
    return w - (group["lr"] / (1.0 - beta1**step)) * first / scale, after


def adamw(
    group: Group, step: Tensor | float, w: Tensor, g: Tensor, state: Named
) -> tuple[Tensor, dict[str, Tensor]]:
    """AdamW: Adam with decoupled weight decay, whatever its group says."""
    return adam({**group, "decoupled_weight_decay": True}, step, w, g, state)


def rmsprop(
    group: Group, step: Tensor | float, w: Tensor, g: Tensor, state: Named
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""RMSprop (Tieleman and Hinton, 2012; centered: Graves, 2013).

    s' = a s + (1 - a) g^2, m' = a m + (1 - a) g if centered, else 0, d = sqrt(s' - m'^2) + eps,
    b' = mu b + g / d, w' = w - eta b'; without momentum w' = w - eta g / d.
    """
    keep, zero = group["alpha"], torch.zeros_like(w)
    g = sign(group) * g + group["weight_decay"] * w
    second = keep * state.get("square_avg", zero) + (1.0 - keep) * g * g
    after, spread = {"square_avg": second}, second
    if group["centered"]:
        mean = after["grad_avg"] = keep * state.get("grad_avg", zero) + (1.0 - keep) * g
        spread = second - mean * mean
    update = g / (_root(spread) + group["eps"])
    if group["momentum"] > 0:
        update = group["momentum"] * state.get("momentum_buffer", zero) + update
        after["momentum_buffer"] = update
    return w - group["lr"] * update, after


def _root(square: Tensor) -> Tensor:
    """The square root, with the derivative 0 at 0.

    A mean of squares is 0 where every gradient so far was; it changes by squares of these, and a
    step by its root times an average of them, so that nothing of first order is left out.
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


STEP_RULES: dict[type[torch.optim.Optimizer], StepRule] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
    torch.optim.RMSprop: rmsprop,
}


@dataclasses.dataclass(frozen=True)
class ParameterStep:
    """One step of one parameter, ready to be made again.

    Attributes:
        rule: the optimizer's.
        group: settings of its parameter group, as they were.
        number: of the step, from 1.
        state: the optimizer's state before it, tensors of the parameter's shape.
        factor: what clipping multiplied the gradient by, a constant.
    """

    rule: StepRule
    group: Group
    number: Tensor | float
    state: Named
    factor: Tensor | float

    def linearized(self, w: Tensor, g: Tensor) -> LinearStep:
        """The step from w with the gradient g: where it leads, and its partial derivatives."""
        inputs = {PARAMETER: w, GRADIENT: g, **self.state}
        inputs = dict(zip(inputs, leaves(tuple(inputs.values())), strict=True))
        with torch.enable_grad():
            state = {name: inputs[name] for name in self.state}
            clipped = self.factor * inputs[GRADIENT]
            moved, after = self.rule(self.group, self.number, inputs[PARAMETER], clipped, state)
            partials = {
                out: _diagonals(value, inputs) for out, value in {PARAMETER: moved, **after}.items()
            }
        return LinearStep(moved.detach().to(w.dtype), partials)


@dataclasses.dataclass(frozen=True)
class LinearStep:
    """Where a step leads, and output -> input -> diagonal of the partial derivative."""

    reached: Tensor
    partials: Mapping[str, Mapping[str, Tensor]]

    def vjp(self, cotangents: Named) -> dict[str, Tensor]:
        """Cotangents of the inputs, given those of the outputs."""
        found: dict[str, Tensor] = {}
        for out, cotangent in cotangents.items():
            for name, diagonal in self.partials.get(out, {}).items():
                term = diagonal * cotangent
                found[name] = found[name] + term if name in found else term
        return found

    def jvp(self, tangents: Named) -> dict[str, Tensor]:
        """Tangents of the outputs, given those of the inputs; leading dimensions are batches."""
        found: dict[str, Tensor] = {}
        for out, partials in self.partials.items():
            for name, diagonal in partials.items():
                if name in tangents:
                    term = diagonal * tangents[name]
                    found[out] = found[out] + term if out in found else term
        return found


def recorded_steps(
    optimizer: torch.optim.Optimizer, params: Sequence[Tensor], factor: Tensor | float
) -> tuple[ParameterStep | None, ...]:
    """The step that `optimizer` is about to make from `p.grad`; `None` where it makes none."""
    rule = STEP_RULES[type(optimizer)]
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return tuple(
        None
        if p.grad is None
        else _recorded(rule, groups[id(p)], optimizer.state.get(p, {}), p, factor)
        for p in params
    )


def _recorded(
    rule: StepRule, group: Group, state: Mapping[str, Any], p: Tensor, factor: Tensor | float
) -> ParameterStep:
    settings = {k: _copied(v) for k, v in group.items() if k != "params"}
    number = count(state["step"]) + 1.0 if "step" in state else 1.0
    own = {
        k: v.detach().clone()
        for k, v in state.items()
        if isinstance(v, Tensor) and k != "step" and v.shape == p.shape
    }
    return ParameterStep(rule, settings, number, own, factor)


def _copied(value: Any) -> Any:
    """A setting as it is now; a schedule may change it in place."""
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return scalar(value).clone() if isinstance(value, Tensor) else value


def _diagonals(value: Tensor, inputs: Named) -> dict[str, Tensor]:
    """Input -> diagonal of dvalue/dinput, for those that it depends on."""
    found = differentiate("", [value], tuple(inputs.values()), retain_graph=True)
    return {name: d for name, d in zip(inputs, found, strict=True) if d is not None}
