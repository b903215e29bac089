"""`Direct`: no response at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.registry import register
from mlo.types import Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("direct")
@dataclasses.dataclass(frozen=True)
class Direct(Hypergradient):
    """First-order baseline: u = 0, so only the direct gradient is left.

    Cost: nothing beyond the direct gradient. Bias: the whole response. Source: the first-order
    variant of DARTS (Liu, Simonyan, Yang, ICLR 2019, section 2.3).
    """

    differentiable: ClassVar[bool] = True

    def work(self, size: int) -> int:
        """No product."""
        return 0

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """Nothing depends on the context."""
        return Result((None,) * len(condition.context), state)
