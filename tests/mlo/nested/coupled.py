"""Losses that bend in everything that they read, and the programs made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..oracles import Level, Params, flat


def coupled(
    own: int, others: Sequence[int], draw: torch.Generator, *, strength: float = 0.3
) -> Callable[..., Tensor]:
    """A strongly convex loss of `own` numbers, quartic and trigonometric in all that it reads.

    What it reads enters with `strength`, and bends the loss where its own numbers stand still: so
    no term of a middle level's Hessian is zero.
    """
    root = torch.randn(own, own, generator=draw)
    curvature = torch.eye(own) + 0.3 * root @ root.T
    pulls = [strength * torch.randn(own, n, generator=draw) / n**0.5 for n in others]
    offset = torch.randn(own, generator=draw)

    def loss(problem: Mapping[str, Tensor], *read: Mapping[str, Tensor]) -> Tensor:
        w, target = flat(problem), offset
        for pull, other in zip(pulls, read, strict=True):
            target = target + pull @ flat(other)
        value = 0.5 * w @ curvature @ w - w @ target + 0.1 * (w**4).sum()
        value = value + 0.2 * torch.sin(w * target).sum() + 0.1 * (w @ target) ** 2
        return value + 0.4 * target.square().sum()

    return loss


def coupled_program(
    reads: Mapping[str, Sequence[str]],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
    unseen: Mapping[tuple[str, str], str] | None = None,
    *,
    strength: float = 0.3,
    seed: int = 0,
) -> list[Level]:
    """Levels for a table problem -> what it reads besides itself, lowest first.

    `unseen` maps a reader and a problem that it reads to a parameter that it does not look at.
    """
    unseen = unseen or {}
    draw = torch.Generator().manual_seed(seed)
    params: dict[str, Params] = {
        name: {k: 0.5 * torch.randn(s, generator=draw) for k, s in own.items()}
        for name, own in shapes.items()
    }
    levels = []
    for name, others in reads.items():
        hidden = [unseen.get((name, other)) for other in others]
        sizes = [
            flat(_without(params[o], key)).numel() for o, key in zip(others, hidden, strict=True)
        ]
        loss = coupled(flat(params[name]).numel(), sizes, draw, strength=strength)
        loss = functools.partial(_looking_away, loss, hidden)
        levels.append(Level(name, loss, params[name], explicit=(name, *others)))
    return levels


def _looking_away(
    loss: Callable[..., Tensor],
    hidden: Sequence[str | None],
    problem: Mapping[str, Tensor],
    *read: Mapping[str, Tensor],
) -> Tensor:
    seen = (_without(other, key) for other, key in zip(read, hidden, strict=True))
    return loss(problem, *seen)


def _without(params: Mapping[str, Tensor], key: str | None) -> Params:
    return {k: t for k, t in params.items() if k != key}
