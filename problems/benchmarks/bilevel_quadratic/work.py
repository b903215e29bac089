r"""What a method really does, counted where it happens: in the losses, not in what it reports.

A loss passes its variable through the identity `_Variable`. The backward of the identity is one
more identity, `_Slope`, through which the gradient g = df/dw leaves. So

- a call of a loss, which a backward follows, is one evaluation of a gradient;
- a backward through `_Slope` is one product with a derivative of g: H p, or (dg/dc)^T u, or both;
- a backward through that product, which leaves by `_Direction`, is one with its transpose.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass
class Work:
    """Counts; a product is taken for two gradients, as everywhere in the documents.

    Attributes:
        gradients: evaluations of a loss with its gradient.
        products: exact products with second derivatives.
    """

    gradients: int = 0
    products: int = 0

    @property
    def evaluations(self) -> int:
        """Everything in gradient evaluations."""
        return self.gradients + 2 * self.products

    def watched(self, variable: Tensor) -> Tensor:
        """Count a call of a loss, and return its variable so that products will be counted."""
        self.gradients += 1
        seen: Tensor = _Variable.apply(variable, self)
        return seen


class _Variable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, variable: Tensor, work: Work) -> Tensor:
        ctx.work, ctx.left = work, False
        return variable.view_as(variable)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> tuple[Tensor, None]:
        if ctx.left:  # what leaves now is a product, counted where it entered
            return slope[0], None
        ctx.left = True
        return _Slope.apply(slope[0], ctx.work), None


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, work: Work) -> Tensor:
        ctx.work = work
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, *direction: Tensor) -> tuple[Tensor, None]:
        ctx.work.products += 1
        return _Direction.apply(direction[0], ctx.work), None


class _Direction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, direction: Tensor, work: Work) -> Tensor:
        ctx.work = work
        return direction.view_as(direction)

    @staticmethod
    def backward(ctx: Any, *tangent: Tensor) -> tuple[Tensor, None]:
        ctx.work.products += 1
        return tangent[0], None
