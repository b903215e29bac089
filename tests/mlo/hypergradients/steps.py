"""Optimizer steps written by hand, differentiable, with all their options.

The formulas are those of the optimizers' papers with PyTorch's conventions; nothing of the engine
is in them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sgd(p: Tensor, g: Tensor, group: dict, state: dict) -> tuple[Tensor, dict]:
    g = (-g if group["maximize"] else g) + group["weight_decay"] * p
    if group["momentum"] == 0:
        return p - group["lr"] * g, {}
    buffer = state.get("momentum_buffer")
    mu, kept = group["momentum"], 1 - group["dampening"]
    buffer = g if buffer is None else mu * buffer + kept * g
    step = g + mu * buffer if group["nesterov"] else buffer
    return p - group["lr"] * step, {"momentum_buffer": buffer}


def adam(p: Tensor, g: Tensor, group: dict, state: dict) -> tuple[Tensor, dict]:
    (b1, b2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
    g = -g if group["maximize"] else g
    if group["decoupled_weight_decay"]:
        p = p * (1 - lr * decay)
    else:
        g = g + decay * p
    t = float(state.get("step", 0.0)) + 1
    m = b1 * state.get("exp_avg", 0.0) + (1 - b1) * g
    s = b2 * state.get("exp_avg_sq", 0.0) + (1 - b2) * g**2
    new = {"step": t, "exp_avg": m, "exp_avg_sq": s}
    if group["amsgrad"]:
        s = torch.maximum(s, torch.as_tensor(state.get("max_exp_avg_sq", 0.0)))
        new["max_exp_avg_sq"] = s
    scale = (s / (1 - b2**t)).sqrt() + group["eps"]
    return p - lr * (m / (1 - b1**t)) / scale, new


def rmsprop(p: Tensor, g: Tensor, group: dict, state: dict) -> tuple[Tensor, dict]:
    a, mu = group["alpha"], group["momentum"]
    g = (-g if group["maximize"] else g) + group["weight_decay"] * p
    s = a * state.get("square_avg", 0.0) + (1 - a) * g**2
    new = {"square_avg": s}
    if group["centered"]:
        m = a * state.get("grad_avg", 0.0) + (1 - a) * g
        s, new["grad_avg"] = s - m**2, m
    step = g / (s.sqrt() + group["eps"])
    if mu:
        step = mu * state.get("momentum_buffer", 0.0) + step
        new["momentum_buffer"] = step
    return p - group["lr"] * step, new


def groups_of(make, *first: dict, **rest):
    """Parameter groups: one of one parameter for each of `first`, the others together."""

    def build(params):
        named = [{"params": [p], **g} for p, g in zip(params, first, strict=False)]
        return make([*named, {"params": params[len(first) :]}], **rest)

    return build


SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
RMSprop = torch.optim.RMSprop
OPTIMIZERS = {
    "sgd": (lambda ps: SGD(ps, 0.1), sgd),
    "sgd that decays and climbs": (lambda ps: SGD(ps, 0.1, weight_decay=0.3, maximize=True), sgd),
    "momentum": (lambda ps: SGD(ps, 0.1, momentum=0.9), sgd),
    "dampened": (lambda ps: SGD(ps, 0.1, momentum=0.8, dampening=0.4, weight_decay=0.1), sgd),
    "nesterov": (lambda ps: SGD(ps, 0.1, momentum=0.7, nesterov=True), sgd),
    "nesterov that climbs": (
        lambda ps: SGD(ps, 0.1, momentum=0.7, nesterov=True, maximize=True, weight_decay=0.1),
        sgd,
    ),
    "groups": (
        groups_of(SGD, {"lr": 0.3}, {"momentum": 0.5, "weight_decay": 0.2}, lr=0.05),
        sgd,
    ),
    "adam": (lambda ps: Adam(ps, 0.05), adam),
    "adam that decays": (lambda ps: Adam(ps, 0.05, weight_decay=0.3, betas=(0.7, 0.9)), adam),
    "adam that climbs": (lambda ps: Adam(ps, 0.05, weight_decay=0.3, maximize=True), adam),
    "amsgrad": (lambda ps: Adam(ps, 0.05, amsgrad=True, eps=1e-3), adam),
    "adamw": (lambda ps: AdamW(ps, 0.05, weight_decay=0.4), adam),
    "adamw, amsgrad": (lambda ps: AdamW(ps, 0.05, amsgrad=True, maximize=True), adam),
    "groups of adamw": (groups_of(AdamW, {"lr": 0.2}, {"betas": (0.5, 0.6)}, lr=0.02), adam),
    "adam, decoupled decay": (
        lambda ps: Adam(ps, 0.05, weight_decay=0.4, decoupled_weight_decay=True),
        adam,
    ),
    "rmsprop": (lambda ps: RMSprop(ps, 0.05, alpha=0.9), rmsprop),
    "rmsprop that decays and climbs": (
        lambda ps: RMSprop(ps, 0.02, alpha=0.8, weight_decay=0.3, maximize=True),
        rmsprop,
    ),
    "rmsprop with momentum": (lambda ps: RMSprop(ps, 0.02, momentum=0.8), rmsprop),
    "rmsprop, centered": (
        lambda ps: RMSprop(ps, 0.05, alpha=0.7, eps=1e-3, centered=True, momentum=0.5),
        rmsprop,
    ),
    "groups of rmsprop": (
        groups_of(
            RMSprop, {"lr": 0.1, "centered": True}, {"alpha": 0.5, "weight_decay": 0.2}, lr=0.01
        ),
        rmsprop,
    ),
}
