"""The user's projection of parameters after a step, checked at every call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.errors import EvaluationError, listed
from mlo.notes import noting
from mlo.types import Tensors
from mlo.vectors import filled, leaves

ProjectFn = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""Name -> tensor before, to name -> tensor after; what it leaves out stays as it is."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """A projection, checked at every call."""

    function: ProjectFn
    names: tuple[str, ...]
    problem: str

    def __call__(self, params: Sequence[Tensor]) -> Tensors:
        """The projected tensors; those that the function does not return stay as they are."""
        given = dict(zip(self.names, params, strict=True))
        with noting(f"in project= of problem '{self.problem}'"):
            projected = self.function(dict(given))
        sound = isinstance(projected, Mapping)
        if not sound or not all(isinstance(t, Tensor) for t in projected.values()):
            found = {k: type(t).__name__ for k, t in projected.items()} if sound else projected
            raise EvaluationError(
                f"problem '{self.problem}': project= must return name -> tensor, got "
                f"{type(projected).__name__} {found!r}; return those that it changes by name",
                problem=self.problem,
            )
        unknown = [k for k in projected if k not in given]
        if unknown:
            raise EvaluationError(
                f"problem '{self.problem}': project= returned {listed(unknown)}, which are none of "
                f"its variables ({listed(self.names)})",
                problem=self.problem,
            )
        for name, tensor in projected.items():
            if tensor.shape != given[name].shape:
                raise EvaluationError(
                    f"problem '{self.problem}': project= returned '{name}' of shape "
                    f"{tuple(tensor.shape)}, expected {tuple(given[name].shape)}",
                    problem=self.problem,
                )
        return tuple(projected.get(name, given[name]) for name in self.names)

    def vjp(self, params: Sequence[Tensor], v: Tensors) -> Tensors:
        """Pull v, a cotangent of the projected tensors, back to those before."""
        with torch.enable_grad():
            before = leaves(params)
            image = self([x.clone() for x in before])  # it may work in place
            pulled = differentiate(self.problem, image, before, v)
        return filled(pulled, before)
