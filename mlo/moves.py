"""A move: what is needed to replay it and to differentiate through it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.setting import Setting
from mlo.types import PartialTensors, Tensors, Values
from mlo.update import Projection, Step
from mlo.vectors import filled, times

if TYPE_CHECKING:
    from mlo.condition import Linearization


@dataclasses.dataclass(frozen=True)
class Move:
    """A move of a problem, real or on trial, or only the setting in which it is to be seen.

    Attributes:
        setting: batch, random state, buffers and mode of the move.
        learning_rate: per parameter.
        before: the parameters from which it moved; `None` where only the setting is kept.
        reads: what its loss read then, problem by problem.
        step: the derivative of the update with respect to the gradient.
        projection: the projection after the step, where there is one.
        graph: the gradient's graph, while the call that made the move lasts.
        context_gradient: the loss's gradient with respect to its context, in the graph's order.
    """

    setting: Setting
    learning_rate: tuple[float | Tensor, ...]
    before: Tensors | None = None
    reads: Values = dataclasses.field(default_factory=dict)
    step: Step | None = None
    projection: Projection | None = None
    graph: Linearization | None = None
    context_gradient: PartialTensors | None = None

    def update_vjp(self, v: Tensors) -> Tensors:
        """Pull v, a cotangent of where the move led, back to the gradient it was made with.

        The projection's derivative comes first, then the diagonal D of the update.
        """
        if self.step is None or self.step.derivative is None:
            raise RuntimeError("this move was recorded without the derivative of its update")
        if self.projection is not None and self.step.unprojected is not None:
            with torch.enable_grad():
                leaves = tuple(t.detach().requires_grad_() for t in self.step.unprojected)
                image = self.projection([x.clone() for x in leaves])  # it may work in place
                pulled = differentiate(self.projection.problem, image, leaves, v)
            v = filled(pulled, leaves)
        return times(v, self.step.derivative)

    def without_graph(self) -> Move:
        """The same move, with the graph let go."""
        return self if self.graph is None else dataclasses.replace(self, graph=None)
