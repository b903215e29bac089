"""Whether losses are what the engine takes them for: functions, with the derivatives they give."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.errors import CheckError
from mlo.sweep import Sweep
from mlo.testing.differences import compared, difference, directions, shifted
from mlo.testing.standing import Standing
from mlo.types import Tensors
from mlo.vectors import dot, filled, norm

STEPS = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
"""Of differences, for directions with entries of order one."""


@dataclasses.dataclass(frozen=True)
class LossCheck:
    """How far the derivatives of one loss are from differences.

    Attributes:
        problem: whose loss.
        first: worst relative error of a directional derivative, over what it reads.
        second: the same for its gradient with respect to the problem's own parameters.
        worst: what the loss reads where `first` is.
    """

    problem: str
    first: float
    second: float
    worst: str


def check_losses(
    standing: Standing, sweep: Sweep, *, tolerance: float, draw: torch.Generator
) -> tuple[LossCheck, ...]:
    """Check every loss that a total gradient goes through.

    Raises:
        CheckError: one is not a function of what it reads, or its derivatives are wrong.
    """
    found = []
    for name in standing.involved:
        function = _Function(standing, sweep, name)
        function.check_repeats()
        check = function.compared(STEPS, tolerance, draw)
        if not check.first <= tolerance:
            raise CheckError(
                f"wrong loss: problem '{name}': the gradient of its loss with respect to "
                f"'{check.worst}' is not the derivative of its value (relative error "
                f"{check.first:.1e}, allowed {tolerance:.0e}): something in it is detached or "
                "rounded, or a backward is wrong. If that is meant, pass losses=False",
                problem=name,
            )
        if not check.second <= tolerance:
            raise CheckError(
                f"wrong loss: problem '{name}': the second derivatives of its loss are not those "
                f"of its gradient (relative error {check.second:.1e}, allowed {tolerance:.0e}): an "
                "operation in it has a wrong double backward, or a gradient that is detached. If "
                "that is meant, pass losses=False",
                problem=name,
            )
        found.append(check)
    return tuple(found)


class _Function:
    """The loss of one problem as a function of all tensors that it reads."""

    def __init__(self, standing: Standing, sweep: Sweep, name: str) -> None:
        self.name = name
        self.objective = standing.program.objectives[name]
        self.setting = standing.settings[name]
        self.reads = self.objective.reads
        self.point = {read: sweep.values[read] for read in self.reads}

    def check_repeats(self) -> None:
        """Two evaluations at one point, batch and random state give one number."""
        first, second = (self._value(self.point) for _ in range(2))
        if not torch.equal(first, second) and not bool(first.isnan() & second.isnan()):
            raise CheckError(
                f"stochastic loss: problem '{self.name}': two evaluations of its loss at the same "
                f"tensors, batch and random state give {float(first)!r} and {float(second)!r}; "
                "draw from the global generators of torch, NumPy or Python, which are replayed, "
                "and let it keep no count of its own",
                problem=self.name,
            )

    def compared(self, steps: Sequence[float], good: float, draw: torch.Generator) -> LossCheck:
        """Along one random direction for each problem that is read."""
        size = float(self._value(self.point).abs())
        errors = {}
        for read in self.reads:
            direction = directions(self.point[read], 1, draw)[0]
            slopes = functools.partial(self._difference, read, direction)
            errors[read] = compared(self._slope(read, direction), slopes, size, steps, good).error
        worst = max(errors, key=lambda read: errors[read], default=self.name)
        second = self._second(steps, good, draw) if self.name in self.reads else 0.0
        return LossCheck(self.name, errors.get(worst, 0.0), second, worst)

    def _second(self, steps: Sequence[float], good: float, draw: torch.Generator) -> float:
        """``<u, g>`` along random directions of everything read, against its derivative."""
        u = directions(self.point[self.name], 1, draw)[0]
        along = {read: directions(self.point[read], 1, draw)[0] for read in self.reads}

        def projected(step: float) -> Tensor:
            point = {read: shifted(x, step, along[read]) for read, x in self.point.items()}
            leaves = _leaves(point[self.name])
            loss = self._loss({**point, self.name: leaves})
            found = differentiate(self.name, [loss], leaves)
            return dot(filled(found, leaves), u).detach()

        def slopes(step: float) -> Tensor:
            return (projected(step) - projected(-step)) / (2 * step)

        leaves = {read: _leaves(self.point[read]) for read in self.reads}
        loss = self._loss(leaves)
        own = leaves[self.name]
        gradient = differentiate(self.name, [loss], own, create_graph=True)
        flat = tuple(x for read in self.reads for x in leaves[read])
        product = filled(differentiate(self.name, gradient, flat, u), flat)
        exact = dot(product, tuple(d for read in self.reads for d in along[read]))
        size = float(norm(filled(gradient, own)).detach()) * float(norm(u))
        return compared(exact, slopes, size, steps, good).error

    def _difference(self, read: str, direction: Tensors, step: float) -> Tensor:
        return difference(functools.partial(self._at, read), self.point[read], direction, step)

    def _slope(self, read: str, direction: Tensors) -> Tensor:
        leaves = _leaves(self.point[read])
        found = differentiate(self.name, [self._loss({**self.point, read: leaves})], leaves)
        return dot(filled(found, leaves), direction)

    def _at(self, read: str, x: Tensors) -> Tensor:
        return self._value({**self.point, read: x})

    def _value(self, values: dict[str, Tensors]) -> Tensor:
        with torch.enable_grad():  # it may differentiate inside
            return self.objective(values, self.setting, replay=True).value

    def _loss(self, values: dict[str, Tensors]) -> Tensor:
        with torch.enable_grad():
            return self.objective(values, self.setting, replay=True).loss


def _leaves(tensors: Tensors) -> Tensors:
    return tuple(t.detach().requires_grad_() for t in tensors)
