"""Central differences, and how near they can come to what they are compared with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlo.types import Tensors

RESOLUTION = 1e-2
"""Largest share of rounding at which a comparison says anything."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far a derivative is from a difference, and what rounding may do to that difference.

    Both are relative to the longer of the two; `error` is only what exceeds the rounding.
    """

    error: float
    resolution: float


def compared(
    exact: Tensor,
    slopes: Callable[[float], Tensor],
    size: float,
    steps: Sequence[float],
    good: float,
) -> Agreement:
    """Compare with differences of smaller and smaller steps, until they agree.

    A kink within the step enters a difference and leaves it as the step shrinks; a mistake stays.

    Args:
        exact: directional derivatives.
        slopes: step -> differences along the same directions.
        size: of the values whose difference is taken.
        steps: to try; all but the first only where rounding leaves something to see.
        good: the error that is good enough.
    """
    best = None
    for step in steps:
        noise = rounding(size, step) * exact.numel() ** 0.5
        if best is not None and noise > RESOLUTION * float(exact.norm()):
            break
        slope = slopes(step)
        length = max(float(exact.norm()), float(slope.norm()))
        found = Agreement(
            relative(exact, slope, noise), noise / length if length > 0 else float("inf")
        )
        if best is None or found.error < best.error:
            best = found
        if found.error <= good:
            break
    if best is None:
        raise ValueError("compared() needs a step")
    return best


def directions(like: Tensors, count: int, draw: torch.Generator) -> list[Tensors]:
    """Of the shape of `like`: all axes where there are few, else as many normal random vectors."""
    size = sum(t.numel() for t in like)
    if size <= count:
        return [_shaped(e, like) for e in torch.eye(size, dtype=torch.float64)]
    drawn = torch.randn(count, size, generator=draw, dtype=torch.float64)
    return [_shaped(v, like) for v in drawn]


def difference(
    function: Callable[[Tensors], Tensor], x: Tensors, direction: Tensors, step: float
) -> Tensor:
    """The central difference of second order of `function` at `x` along `direction`."""
    ahead, behind = (function(shifted(x, s, direction)) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def shifted(x: Tensors, step: float, direction: Tensors) -> Tensors:
    """``x + step * direction``."""
    return tuple(a + step * d for a, d in zip(x, direction, strict=True))


def relative(found: Tensor, expected: Tensor, noise: float = 0.0) -> float:
    """The distance, as far as it exceeds the noise, over the length of the longer one."""
    gap = float((found - expected).norm()) - noise
    if math.isnan(gap):
        return math.inf
    length = max(float(found.norm()), float(expected.norm()))
    return 0.0 if gap <= 0 else gap / length


def rounding(size: float, step: float) -> float:
    """What rounding may do to a difference of values of this size in float64.

    Not less than for values of 1e-6: arguments of order one are rounded too, and where value and
    slope vanish together nothing else is left.
    """
    return 16 * torch.finfo(torch.float64).eps * max(size, 1e-6) / step


def _shaped(vector: Tensor, like: Tensors) -> Tensors:
    parts = vector.split([t.numel() for t in like])
    return tuple(p.reshape(t.shape).to(t) for p, t in zip(parts, like, strict=True))
