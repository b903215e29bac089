"""A program for recorded updates: neither quadratic nor separable, one parameter unused."""

from __future__ import annotations

import torch

SIZES = {"a": (3, 2), "b": (), "idle": (2,)}
"""Shapes of the lower parameters; "idle" is used by no loss, so it has no gradient."""


def fit(low, top, train):
    """Neither quadratic nor separable, with an upper parameter in every place."""
    x, y = train
    hidden = torch.tanh(x @ low["a"])
    errors = hidden.sum(1) + low["b"] - y
    decay = (top["decay"].exp() * low["a"].square()).sum()
    return (torch.sigmoid(top["weight"]) * errors.square()).mean() + 0.1 * decay


def judge(low, valid):
    """Reads the lower parameters alone."""
    x, y = valid
    return (torch.tanh(x @ low["a"]).sum(1) + low["b"] - y).abs().pow(1.5).mean()


def values(seed=0):
    """Where everybody begins."""
    draw = torch.Generator().manual_seed(seed)
    low = {k: torch.randn(shape, generator=draw) for k, shape in SIZES.items()}
    top = {
        "decay": torch.randn(2, generator=draw),
        "weight": torch.randn(5, generator=draw),
    }
    return low, top


def batches(count, seed):
    """As many batches of five examples."""
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(5, 3, generator=draw), torch.randn(5, generator=draw)) for _ in range(count)
    ]


def leaves(tensors):
    """To differentiate with respect to."""
    return {k: t.detach().clone().requires_grad_() for k, t in tensors.items()}
