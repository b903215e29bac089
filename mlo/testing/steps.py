r"""Steps of optimizers written out and differentiable, for the checks of recorded moves.

Formulas of their own, so that they confirm or contradict what the library takes for the derivative
of an optimizer's update: SGD with momentum, and Adam, with PyTorch's conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Group: TypeAlias = Mapping[str, Any]
State: TypeAlias = dict[str, Tensor]
Rule: TypeAlias = Callable[[Tensor, Tensor, Group, State], tuple[Tensor, State]]
"""rule(w, g, group, state): where a parameter is led by its gradient, and the state after that."""


def sgd_step(w: Tensor, g: Tensor, group: Group, state: State) -> tuple[Tensor, State]:
    """SGD: b' = mu b + (1 - tau) g, g at first; w' = w - eta b', or w - eta (g + mu b')."""
    before, mu = state.get("momentum_buffer"), group["momentum"]
    buffer = g if before is None else mu * before + (1 - group["dampening"]) * g
    step = g + mu * buffer if group["nesterov"] else buffer
    return w - group["lr"] * step, {"momentum_buffer": buffer}


def adam_step(w: Tensor, g: Tensor, group: Group, state: State) -> tuple[Tensor, State]:
    """Adam: w' = w - eta (m' / k1) / (sqrt(s' / k2) + eps), k = 1 - b^t."""
    (b1, b2), new = group["betas"], _moments(g, group, state)
    first = new["exp_avg"] / (1 - b1 ** new["step"])
    second = new["exp_avg_sq"] / (1 - b2 ** new["step"])
    return w - group["lr"] * first / (second.sqrt() + group["eps"]), new


def uncorrected_adam_step(w: Tensor, g: Tensor, group: Group, state: State) -> tuple[Tensor, State]:
    """Adam's step, with the derivative of eta m' / sqrt(s'): what SAMA puts in its place."""
    reached, new = adam_step(w, g, group, state)
    update = group["lr"] * new["exp_avg"] / new["exp_avg_sq"].sqrt()
    return (reached - w).detach() + w + update.detach() - update, new


def _moments(g: Tensor, group: Group, state: State) -> State:
    (b1, b2), nothing = group["betas"], torch.zeros_like(g)
    return {
        "step": state.get("step", torch.zeros(())).double() + 1,
        "exp_avg": b1 * state.get("exp_avg", nothing) + (1 - b1) * g,
        "exp_avg_sq": b2 * state.get("exp_avg_sq", nothing) + (1 - b2) * g**2,
    }
