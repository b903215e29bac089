"""Newton's method with the matrices written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

System = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A gradient and its Jacobian at a point."""


def newton(system: System, point: Tensor) -> Tensor:
    """The point where a gradient vanishes, to rounding.

    A step that does not shrink the gradient is halved; where no step does, rounding is reached.
    """
    slope, jacobian = system(point)
    for _ in range(100):
        move, length = torch.linalg.solve(jacobian, slope), 1.0
        trial = point - move
        while not system(trial)[0].norm() < slope.norm():
            length /= 2
            if length < 1e-3:
                return point
            trial = point - length * move
        point = trial
        slope, jacobian = system(point)
    return point
