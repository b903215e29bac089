"""Derivatives of a loss that is the mean over micro-batches, one graph at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlo.differentiation import differentiate
from mlo.types import PartialTensors, Tensors
from mlo.vectors import dense, leaves, plus

Parts = Callable[[Tensors, Tensors, Callable[[Tensor], None]], None]
"""parts(w, c, visitor): shows the visitor the terms that f(w, c) is the sum of, one at a time."""


@dataclasses.dataclass(frozen=True)
class MicroBatches:
    """The terms of a loss.

    Attributes:
        problem: whose loss it is, for messages.
        parts: shows them.
    """

    problem: str
    parts: Parts

    def gradient(self, params: Tensors, context: Tensors) -> PartialTensors:
        """``df/dw``."""
        params, context = leaves(params), leaves(context)
        return self._summed(params, context, lambda f: differentiate(self.problem, [f], params))

    def context_gradient(self, params: Tensors, context: Tensors) -> PartialTensors:
        """``df/dc``."""
        context = leaves(context)
        return self._summed(params, context, lambda f: differentiate(self.problem, [f], context))

    def product(
        self, params: Tensors, context: Tensors, u: Sequence[Tensor], *, both: bool
    ) -> PartialTensors:
        """``(dg/dc)^T u``, or that with respect to w and c: at a gradient more for each part."""
        params, context = leaves(params), leaves(context)
        wrt = (*params, *context) if both else context

        def product(loss: Tensor) -> PartialTensors:
            gradient = differentiate(self.problem, [loss], params, create_graph=True)
            return differentiate(self.problem, gradient, wrt, u)

        return self._summed(params, context, product)

    def _summed(
        self, params: Tensors, context: Tensors, term: Callable[[Tensor], PartialTensors]
    ) -> PartialTensors:
        """The sum of a term over the parts."""
        total: PartialTensors = ()

        def add(loss: Tensor) -> None:
            nonlocal total
            found = dense(term(loss))
            total = plus(total, found) if total else found

        with torch.enable_grad():
            self.parts(params, context, add)
        return total
