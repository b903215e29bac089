"""What looks at the numbers of moves while they are made; the one here looks at nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlo.types import Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition
    from mlo.hypergradients import Result
    from mlo.setting import Setting
    from mlo.sweep import Gradient, Sweep


@dataclasses.dataclass(frozen=True)
class Place:
    """Which update is being made.

    Attributes:
        tick: the tick.
        name: the problem that moves.
        update: which of its updates.
        due: all problems that move in the tick.
        bare: whether nothing is drawn in it before its loss is evaluated under a setting that can
            be replayed.
    """

    tick: int
    name: str
    update: int
    due: tuple[str, ...]
    bare: bool = False


class Watch:
    """Is told of everything that moves compute, in the order of computation.

    Of responses within responses (nested levels) it is told as well, between `answering` of the
    outer one and `answered`.
    """

    def begin(self, place: Place) -> None:
        """An update begins; what is drawn from here on belongs to it."""

    def end(self) -> None:
        """It has been made."""

    def under(self, name: str, setting: Setting) -> None:
        """A gradient of `name` is about to be taken, in an update or in a move on trial for it."""

    def answering(self, label: str) -> None:
        """The response of a problem, or of several, is about to be taken."""

    def begun(self, name: str, start: Tensors) -> None:
        """`name` begins anew there."""

    def loss(self, name: str, value: Tensor) -> None:
        """The loss of `name`, or of one of its micro-batches."""

    def answered(
        self, label: str, method: object, cotangent: Tensors, result: Result, at: Condition
    ) -> None:
        """It has been taken: what a method made of a cotangent, at a condition."""

    def gradient(self, name: str, gradient: Gradient) -> None:
        """The total gradient of `name`."""

    def probe(self, sweep: Sweep, name: str, setting: Setting, gradient: Gradient) -> None:
        """A move of `name` is about to be made which will be replayed."""

    def stepping(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        params: Sequence[nn.Parameter],
        *,
        trial: bool,
    ) -> Callable[[], None]:
        """`optimizer` is about to step; what is returned is called when it has."""
        return _nothing


def _nothing() -> None:
    """Nobody looks."""


UNWATCHED = Watch()
"""For moves between ticks, and of checks."""
