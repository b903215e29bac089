"""`FiniteDifference`: the one-step hypergradient without second derivatives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mlo.errors import ConfigurationError
from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.difference import Difference
from mlo.hypergradients.fields import check_flag, check_number
from mlo.hypergradients.registry import register
from mlo.types import Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("finite-difference")
@dataclasses.dataclass(frozen=True)
class FiniteDifference(Hypergradient):
    r"""The one-step hypergradient of DARTS, its mixed product by a finite difference.

    With u = D v as in `OneStep` and e = radius / |u|,

        c_bar = -[df/dc(w + e u) - df/dc(w - e u)] / (2 e)        (scheme="central")
        c_bar = -[df/dc(w + e u) - df/dc(w)] / e                  (scheme="forward")

    at the recorded move: the same batch, random state, mode and buffers on both sides, on shifted
    copies of the parameters. The forward scheme takes df/dc(w) from the move's own pass.

    Cost: 2 gradient evaluations with respect to the context (1 for "forward"), twice that with
    `check`; what the loss computes by `mlo.once` is left out of these (central scheme): it counts
    once, in the move. Memory: one shifted copy, and the graph of that part. Bias: O(radius^2) where
    the loss is smooth (O(radius) for "forward"), plus rounding, which grows as 1 / radius. It sees
    through `.detach()` in the loss, and kinks of ReLU and max-pooling within the radius enter it in
    full, where the exact product of `OneStep` takes the one-sided derivative: on such networks the
    two are different estimators.
    Sources: Liu et al., ICLR 2019, eq. 8; radius there 0.01.

    Args:
        radius: length of the shift; `None` follows the parameters' dtype: 0.0001 for float64, 0.01
            for float32, 0.1 for float32 under autocast around the engine and for float16, 1 for
            bfloat16; the largest of them where there are several. Autocast entered inside a loss
            cannot be seen from here; give 0.1 yourself. A radius of 1 is a coarse one for
            "forward".
        scheme: `"central"` or `"forward"`.
        check: take a second difference at half the radius, and report the relative disagreement as
            the residual, with the outcome `inaccurate` above `tolerance`. Where the loss is smooth
            the relative error is at most 4 / 3 of it (2 times it for "forward"), up to higher
            powers of the radius. A kink that lies within both radii is seen, one within neither is
            not there; one that both see alike goes unnoticed.
        tolerance: largest disagreement that passes the check.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    radius: float | None = None
    scheme: str = "central"
    check: bool = False
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.scheme not in ("central", "forward"):
            raise ConfigurationError(
                f"FiniteDifference(scheme=...) must be 'central' or 'forward', got {self.scheme!r}"
            )
        if self.radius is not None:
            check_number(self, "radius", positive=True)
        check_flag(self, "check")
        check_number(self, "tolerance")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The forward scheme takes one side from the move, the central one evaluates both."""
        extra = "context_gradient" if self.scheme == "forward" else "shared"
        return frozenset({"moves", "optimizer", "staged", extra})

    def work(self, size: int) -> int:
        """Two gradient evaluations, which is the price of one product."""
        return 2 if self.check else 1

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """One difference along the exact D v, or two where it is to be checked."""
        forward = self.scheme == "forward"
        difference = Difference(self.radius, forward, self.check, self.tolerance)
        grads, info = difference.take(condition, condition.update_vjp(cotangent))
        return Result(grads, state, info)
