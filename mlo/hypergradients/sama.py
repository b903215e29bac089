"""`Sama`: DARTS' difference along a direction that the optimizer has adapted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.difference import Difference
from mlo.hypergradients.fields import check_flag, check_number
from mlo.hypergradients.registry import register
from mlo.types import Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("sama")
@dataclasses.dataclass(frozen=True)
class Sama(Hypergradient):
    r"""SAMA: scalable meta-learning by first derivatives, for adaptive optimizers.

    The implicit function theorem for the optimizer's own fixed point, update(g(w, c)) = 0, has
    -(dg/dc)^T D J^{-T} v with J = d update / dw. SAMA puts the identity in the place of J, so

        u = D v,    c_bar = -[df/dc(w + e u) - df/dc(w - e u)] / (2 e),    e = radius / |u|

    which is `FiniteDifference` but for D, the "algorithmic adaptation". For SGD and RMSprop D is
    the derivative of the update. For Adam and AdamW it is the one of SAMA's authors,

        D = eta [ (1 - b1) b2 s - b1 (1 - b2) m g ] / (sqrt(b2 s + (1 - b2) g^2) + eps)^3,

    m and s the moments before the step: the derivative of an update without bias corrections, and
    with eps moved under the cube. Up to eps that is k1 / sqrt(k2) times the exact D, with
    k = 1 - b^t: zero at the first step, too long by 6.6 at t = 12, by 3.2 at t = 100 and by 1.3 at
    t = 1000 (default betas), right in the long run. `FiniteDifference` and `OneStep` use the exact
    D.

    Other differences from what was published. Everything is taken where the recorded move was
    made, on its batch, where the authors look from the point that it led to. D has the learning
    rate (and Nesterov's and dampening factors) for SGD too, where their code uses v itself: a
    factor that matters beside a direct gradient, or with several parameter groups. The moments
    follow the optimizer's weight decay, `maximize` and amsgrad, which theirs do not. Their option
    to leave the base parameters shifted along u after a meta-update moves a problem in the
    backward pass of another, and is left out. RMSprop is not in their code.

    Cost: 2 gradient evaluations with respect to the context, 4 with `check`; memory: one shifted
    copy. Bias: J is not the identity, whatever the radius; against the derivative of the step, the
    factor above, O(radius^2) and rounding. Kinks and `.detach()` are as in `FiniteDifference`.
    Source: Choe et al., "Making Scalable Meta Learning Practical", NeurIPS 2023.

    Args:
        radius: alpha there; `None` follows the parameters' dtype as in `FiniteDifference`.
        check: take a second difference at half the radius, as in `FiniteDifference`.
        tolerance: largest disagreement that passes the check.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset(
        {"moves", "optimizer", "adaptation", "shared", "staged"}
    )

    radius: float | None = None
    check: bool = False
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.radius is not None:
            check_number(self, "radius", positive=True)
        check_flag(self, "check")
        check_number(self, "tolerance")

    def work(self, size: int) -> int:
        """Two gradient evaluations, which is the price of one product."""
        return 2 if self.check else 1

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """One central difference along the adapted direction, or two where it is to be checked."""
        difference = Difference(self.radius, False, self.check, self.tolerance)
        grads, info = difference.take(condition, condition.update_vjp(cotangent))
        return Result(grads, state, info)
