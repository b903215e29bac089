"""Programs as data: who reads whom, and losses of several kinds for any such table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .oracles import Level, Params, flat

KINDS = ("quadratic", "quartic", "trigonometric")
SHAPES = ({"a": (2,)}, {"a": (1, 2), "b": ()}, {"a": (2, 1), "b": (1,), "c": (1, 1)})


def pulled(kind: str, own: int, others: Sequence[int], draw: torch.Generator) -> Callable:
    """A strongly convex loss of `own` numbers that every other problem pulls at."""
    root = torch.randn(own, own, generator=draw)
    curvature = torch.eye(own) + 0.3 * root @ root.T
    pulls = [torch.randn(own, n, generator=draw) / n**0.5 for n in others]
    offset = torch.randn(own, generator=draw)

    def loss(problem: Mapping[str, Tensor], *read: Mapping[str, Tensor]) -> Tensor:
        w, target = flat(problem), offset
        for pull, other in zip(pulls, read, strict=True):
            target = target + pull @ flat(other)
        value = 0.5 * w @ curvature @ w - w @ target
        if kind == "quartic":
            value = value + 0.1 * (w**4).sum() + 0.05 * (w * target).square().sum()
        if kind == "trigonometric":
            value = value + 0.3 * torch.sin(w + target).sum()
        return value

    return loss


def judged(own: int, others: Sequence[int], draw: torch.Generator) -> Callable:
    """A loss of the other problems alone, so that every gradient is a response."""
    views = [torch.randn(own, n, generator=draw) / n**0.5 for n in others]

    def loss(*read: Mapping[str, Tensor]) -> Tensor:
        seen = sum(view @ flat(other) for view, other in zip(views, read, strict=True))
        return 0.5 * (seen - 1.0).square().sum() + 0.3 * torch.sin(seen).sum()

    return loss


def program(
    reads: Mapping[str, Sequence[str]],
    kinds: Sequence[str],
    *,
    constant: Mapping[str, Sequence[str]] | None = None,
    judges: Sequence[str] = (),
    seed: int = 0,
) -> list[Level]:
    """Levels for a table problem -> what it reads besides itself, lowest first.

    Those in `judges` do not read themselves.
    """
    draw = torch.Generator().manual_seed(seed)
    params: dict[str, Params] = {
        name: {k: torch.randn(s, generator=draw) for k, s in SHAPES[i % len(SHAPES)].items()}
        for i, name in enumerate(reads)
    }
    sizes = {name: flat(own).numel() for name, own in params.items()}
    levels = []
    for i, (name, others) in enumerate(reads.items()):
        own, read = sizes[name], [sizes[other] for other in others]
        if name in judges:
            loss, names = judged(own, read, draw), tuple(others)
        else:
            loss, names = pulled(kinds[i % len(kinds)], own, read, draw), (name, *others)
        cut = tuple((constant or {}).get(name, ()))
        levels.append(Level(name, loss, params[name], cut, names))
    return levels
