"""Everything that an evaluation of a function depends on besides the variables."""

from __future__ import annotations

import dataclasses

from mlo.places import Buffers
from mlo.randomness import RandomState
from mlo.types import Batch


@dataclasses.dataclass(frozen=True)
class Setting:
    """Everything an evaluation depends on besides the variables.

    Attributes:
        tick: the present tick.
        batches: stream -> batch, once for every micro-batch.
        random: the random state before the evaluation; `None` where it will not be replayed.
        buffers: key of a place -> copy of a buffer; `None` takes the live ones.
        modes: training flags of the container's modules, in the order of `modules()`.
    """

    tick: int
    batches: tuple[Batch, ...]
    random: RandomState | None = None
    buffers: Buffers | None = None
    modes: tuple[bool, ...] | None = None
