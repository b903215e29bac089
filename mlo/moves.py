"""A move: what is needed to replay it and to differentiate through it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mlo.setting import Setting
from mlo.types import PartialTensors, Tensors, Values
from mlo.update import Step

if TYPE_CHECKING:
    from mlo.condition import Linearization


@dataclasses.dataclass(frozen=True)
class Begun:
    """Where a problem began anew: under what setting, and its parameters before it."""

    setting: Setting
    own: Tensors


@dataclasses.dataclass(frozen=True)
class Move:
    """A move of a problem, real or on trial, or only the setting in which it is to be seen.

    Attributes:
        setting: batch, random state, buffers and mode of the move.
        learning_rate: per parameter.
        before: the parameters from which it moved; `None` where only the setting is kept.
        reads: where everybody stood then that its gradient depends on, problem by problem.
        below: the moves at which the problems of its scope were seen then.
        step: how its step depends on the gradient.
        graph: the gradient's graph, while the call that made the move lasts.
        context_gradient: the loss's gradient with respect to its context, in the graph's order,
            and then that with respect to `before` where the move began anew.
        begun: how `before` came from the problem's start, where it did.
    """

    setting: Setting
    learning_rate: tuple[float | Tensor, ...]
    before: Tensors | None = None
    reads: Values = dataclasses.field(default_factory=dict)
    below: Mapping[str, Move] = dataclasses.field(default_factory=dict)
    step: Step | None = None
    graph: Linearization | None = None
    context_gradient: PartialTensors | None = None
    begun: Begun | None = None

    def without_graph(self) -> Move:
        """The same move, with the graph let go."""
        return self if self.graph is None else dataclasses.replace(self, graph=None)
