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
    from mlo.linearization import Linearization
    from mlo.once import Kept


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
        kept: what the loss computed by `once`, while the call that made the move lasts.
        context_gradient: the loss's gradient with respect to its context, in the graph's order,
            and then that with respect to `before` where the move began anew.
        begun: how `before` came from the problem's start, where it did.
        past: the recorded moves that led to `before`, oldest first, as far as somebody may
            differentiate; each without its own past.
        trial: whether it was made on trial.
    """

    setting: Setting
    learning_rate: tuple[float | Tensor, ...]
    before: Tensors | None = None
    reads: Values = dataclasses.field(default_factory=dict)
    below: Mapping[str, Move] = dataclasses.field(default_factory=dict)
    step: Step | None = None
    graph: Linearization | None = None
    kept: Kept | None = None
    context_gradient: PartialTensors | None = None
    begun: Begun | None = None
    past: tuple[Move, ...] = ()
    trial: bool = False

    def without_graph(self) -> Move:
        """The same move, with the graphs let go."""
        moves = (*self.past, self)
        if all(move.graph is None and move.kept is None for move in moves):
            return self
        past = tuple(move.without_graph() for move in self.past)
        return dataclasses.replace(self, graph=None, kept=None, past=past)


def past_of(before: Move | None, reach: int | None, *, first: bool) -> tuple[Move, ...]:
    """The recorded moves that lead to the one after `before`.

    Args:
        before: the latest recorded move, where there is one.
        reach: moves to be differentiated, the coming one included; `None`: all updates of its own
            move.
        first: whether the coming one is the first update of its move.
    """
    if before is None or before.before is None or (first and reach is None):
        return ()
    past = (*before.past, dataclasses.replace(before, past=()))
    return past if reach is None else past[max(0, len(past) + 1 - reach) :]
