"""`FiniteDifference`: the mixed product by a difference of first derivatives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlo.errors import ConfigurationError
from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.fields import check_number
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.types import PartialTensors, Tensors
from mlo.vectors import finite, norm, widened

if TYPE_CHECKING:
    from mlo.condition import Condition

RADIUS = {torch.bfloat16: 1.0, torch.float16: 0.1}
"""Radius per dtype of the parameters: the shift must survive their rounding."""


@register("finite-difference")
@dataclasses.dataclass(frozen=True)
class FiniteDifference(Hypergradient):
    r"""The one-step hypergradient of DARTS, its mixed product by a finite difference.

    With u = D v as in `OneStep` and e = radius / |u|,

        c_bar = -[df/dc(w + e u) - df/dc(w - e u)] / (2 e)        (scheme="central")
        c_bar = -[df/dc(w + e u) - df/dc(w)] / e                  (scheme="forward")

    at the recorded move: the same batch, random state, mode and buffers on both sides, on shifted
    copies of the parameters. The forward scheme takes df/dc(w) from the move's own pass.

    Cost: 2 gradient evaluations with respect to the context (1 for "forward"); memory: one shifted
    copy. Bias: O(radius^2) where the loss is smooth (O(radius) for "forward"), plus rounding. It
    sees through `.detach()` in the loss, and kinks of ReLU and max-pooling within the radius enter
    it in full, where the exact product of `OneStep` takes the one-sided derivative: on such
    networks the two are different estimators. Sources: Liu et al., ICLR 2019, eq. 8; radius there
    0.01.

    Args:
        radius: length of the shift; `None` follows the parameters' dtype (0.01, 0.1 under bfloat16
            autocast around the engine and for float16 weights, 1 for bfloat16 weights). Autocast
            entered inside a loss cannot be seen from here; give 0.1 yourself.
        scheme: `"central"` or `"forward"`.
        check: take a second difference at half the radius, and report the relative disagreement as
            the residual, with the outcome `inaccurate` above `tolerance`.
        tolerance: largest disagreement that passes the check.
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
        check_number(self, "tolerance")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The forward scheme also needs the context's gradient at the move."""
        extra = {"context_gradient"} if self.scheme == "forward" else set()
        return frozenset({"moves", "optimizer", "staged", *extra})

    def work(self, size: int) -> int:
        """Two gradient evaluations, which is the price of one product."""
        return 2 if self.check else 1

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """One difference, or two where it is to be checked."""
        shift = condition.update_vjp(cotangent)
        size = norm(shift)
        radius = self.radius if self.radius is not None else default_radius(condition.params)
        grads = self._difference(condition, shift, size, radius)
        cost = 1 if self.scheme == "forward" else 2
        info = Info(products=cost, code=code_where(size == 0, Outcome.ZERO, 0))
        if self.check:
            half = self._difference(condition, shift, size, radius / 2)
            info = self._compared(grads, half, info)
        info = dataclasses.replace(
            info, code=code_where(~finite((*shift, *grads)), Outcome.NONFINITE, info.code)
        )
        return Result(grads, state, info)

    def _difference(
        self, condition: Condition, shift: Tensors, size: Tensor, radius: float
    ) -> PartialTensors:
        scale = torch.where(size > 0, radius / size, torch.zeros_like(size))
        inverse = torch.where(size > 0, size / radius, torch.zeros_like(size))
        plus = _shifted_gradient(condition, shift, scale)
        if self.scheme == "central":
            minus = _shifted_gradient(condition, shift, -scale)
            inverse = inverse / 2
        else:
            minus = condition.move_context_gradient()
        return tuple(
            _scaled_difference(a, b, inverse, like)
            for a, b, like in zip(plus, minus, condition.context, strict=True)
        )

    def _compared(self, grads: PartialTensors, half: PartialTensors, info: Info) -> Info:
        present = [
            (a, b) for a, b in zip(grads, half, strict=True) if a is not None and b is not None
        ]
        if not present:
            return info
        gap = norm([a - b for a, b in present])
        size = norm([b for _, b in present])
        residual = torch.where(size > 0, gap / size, gap)
        code = code_where(~(residual <= self.tolerance), Outcome.INACCURATE, info.code)
        return Info(products=2 * info.products, residual=residual, code=code)


def default_radius(params: Tensors) -> float:
    """The radius that suits the coarsest dtype among the parameters, or autocast."""
    autocast = torch.is_autocast_enabled(params[0].device.type)
    base = 0.1 if autocast else 0.01
    return max([base, *(RADIUS.get(p.dtype, base) for p in params)])


def _shifted_gradient(condition: Condition, shift: Tensors, scale: Tensor) -> PartialTensors:
    shifted = tuple(
        (widened(p) + scale * widened(s)).to(p.dtype)
        for p, s in zip(condition.params, shift, strict=True)
    )
    return condition.context_gradient(shifted)


def _scaled_difference(a: Tensor | None, b: Tensor | None, inverse: Tensor, like: Tensor) -> Any:
    """``-(a - b) * inverse`` in float32 or better; `None` where neither side depends."""
    if a is None and b is None:
        return None
    a = torch.zeros_like(like) if a is None else a
    b = torch.zeros_like(like) if b is None else b
    return (-(widened(a) - widened(b)) * inverse).to(like.dtype)
