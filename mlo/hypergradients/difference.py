"""The mixed product by a difference of first derivatives, for the methods that take one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.records import Info, Outcome, code_where
from mlo.types import PartialTensors, Tensors
from mlo.vectors import add_scaled, filled, finite, norm, widened

if TYPE_CHECKING:
    from mlo.condition import Condition

RADII = {torch.float64: 1e-4, torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 1.0}
"""Radius per dtype of the parameters: the shift must survive their rounding."""

AUTOCAST = 0.1
"""Radius for parameters in float32 under autocast, which rounds them on their way in."""


@dataclasses.dataclass(frozen=True)
class Difference:
    r"""``-(dg/dc)^T u`` by first derivatives of the loss around w, with e = radius / |u|.

        -[df/dc(w + e u) - df/dc(w - e u)] / (2 e)        (central)
        -[df/dc(w + e u) - df/dc(w)] / e                  (forward)

    Both sides see the batch, random state, mode and buffers of the condition; parameters are
    shifted on copies; differences are taken and divided in float32 or better.

    Attributes:
        radius: length of the shift; `None` takes `default_radius`.
        forward: whether one side is the gradient of the recorded move.
        check: whether to take a second difference at half the radius and report how far apart the
            two are, relative to it. On a smooth loss the error is at most 4 / 3 of that (2 for
            forward differences), up to higher powers of the radius.
        tolerance: largest disagreement that passes the check.
    """

    radius: float | None
    forward: bool
    check: bool
    tolerance: float

    def take(self, condition: Condition, u: Tensors) -> tuple[PartialTensors, Info]:
        """One difference, or two where it is to be checked, and how it went."""
        size = norm(u)
        radius = default_radius(condition.params) if self.radius is None else self.radius
        grads = self._at(condition, u, size, radius)
        cost = 1 if self.forward else 2
        info = Info(products=cost, code=code_where(size == 0, Outcome.ZERO, 0))
        if self.check:
            half = self._at(condition, u, size, radius / 2)
            info = self._compared(condition, grads, half, info)
        code = code_where(~finite((*u, *grads)), Outcome.NONFINITE, info.code)
        return grads, dataclasses.replace(info, code=code)

    def _at(self, condition: Condition, u: Tensors, size: Tensor, radius: float) -> PartialTensors:
        scale = torch.where(size > 0, radius / size, torch.zeros_like(size))
        inverse = torch.where(size > 0, size / radius, torch.zeros_like(size))
        ahead = _shifted_gradient(condition, u, scale)
        if self.forward:
            behind = condition.move_context_gradient()
        else:
            behind, inverse = _shifted_gradient(condition, u, -scale), inverse / 2
        direct = (
            _scaled_difference(a, b, inverse, like)
            for a, b, like in zip(ahead, behind, condition.direct, strict=True)
        )
        return condition.pulled(tuple(direct))

    def _compared(
        self, condition: Condition, grads: PartialTensors, half: PartialTensors, info: Info
    ) -> Info:
        info = dataclasses.replace(info, products=2 * info.products)
        if all(g is None for g in (*grads, *half)):
            return info  # nothing depends, and nothing can be compared
        near = tuple(map(widened, filled(half, condition.context)))
        gap = add_scaled(near, -1.0, filled(grads, condition.context))
        size = norm(near)
        residual = torch.where(size > 0, norm(gap) / size, norm(gap))
        code = code_where(~(residual <= self.tolerance), Outcome.INACCURATE, info.code)
        return dataclasses.replace(info, residual=residual, code=code)


def default_radius(params: Tensors) -> float:
    """The radius that suits the coarsest dtype among the parameters, or autocast."""
    autocast = torch.is_autocast_enabled(params[0].device.type)
    radii = {**RADII, torch.float32: AUTOCAST} if autocast else RADII
    return max(radii.get(p.dtype, radii[torch.float32]) for p in params)


def _shifted_gradient(condition: Condition, u: Tensors, scale: Tensor) -> PartialTensors:
    shifted = tuple(
        (widened(p) + scale * widened(s)).to(p.dtype)
        for p, s in zip(condition.params, u, strict=True)
    )
    return condition.direct_gradient(shifted)


def _scaled_difference(
    a: Tensor | None, b: Tensor | None, inverse: Tensor, like: Tensor
) -> Tensor | None:
    """``-(a - b) * inverse`` in float32 or better; `None` where neither side depends."""
    if a is None and b is None:
        return None
    a = torch.zeros_like(like) if a is None else a
    b = torch.zeros_like(like) if b is None else b
    return (-(widened(a) - widened(b)) * inverse).to(like.dtype)
