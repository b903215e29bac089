"""`OptimizerDiagonal`: the scale that the problem's own optimizer divides its steps by."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from mlo.hypergradients.fields import check_number
from mlo.hypergradients.preconditioners.base import Preconditioner, Preconditioning
from mlo.hypergradients.preconditioners.diagonal import inverse_of

if TYPE_CHECKING:
    from mlo.condition import Condition


@dataclasses.dataclass(frozen=True)
class OptimizerDiagonal(Preconditioner):
    r"""M = sqrt(s) + eps, with s the optimizer's running mean of the squared gradient.

    It is the scale that Adam, AdamW and RMSprop divide their steps by, with their correction for
    the beginning. Squared gradients stand in for curvatures, so M grows with the root of them:
    a cautious scale that costs nothing, and only as good as the gradients were typical. Before the
    optimizer's first step it is the identity. `damping` is no part of it, since it is in other
    units; a multiple of M makes no difference to conjugate gradients. Entries below `floor` times
    the mean are raised to it.

    Cost: no product. Memory: one vector of the parameters' size.

    Sources: Kingma and Ba, "Adam", ICLR 2015; Tieleman and Hinton, "RMSProp", 2012.

    Args:
        floor: smallest entry of M relative to their mean.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"second_moments"})

    floor: float = 1e-3

    def __post_init__(self) -> None:
        check_number(self, "floor", positive=True)

    def prepare(self, condition: Condition, damping: float) -> Preconditioning:
        """Take the scale as the optimizer has it now."""
        return Preconditioning(inverse_of(condition.optimizer_scale(), self.floor))
