r"""The solution of a problem is a tensor, and its backward pass is the hypergradient.

`respond` returns the parameters w of a problem attached to its context c. Backward receives a
cotangent v of w and returns, for every context tensor,

    c_bar = -(dg/dc)^T u,    (dg/dw)^T u = v,

or what the problem's method puts in the place of u. Autograd does the rest: it walks the problems
in reverse topological order, sums the cotangents of all readers, and calls each backward once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mlo.types import PartialTensors, Tensors


class Site(Protocol):
    """Where a response is taken: turns a cotangent of w into cotangents of c."""

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        """One entry per context tensor; `None` where not needed or nothing depends."""


class _Response(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, site: Site, n: int, *tensors: Tensor) -> Tensors:
        solution = tuple(t.detach() for t in tensors[:n])
        ctx.site, ctx.n = site, n
        ctx.save_for_backward(*solution, *tensors[n:])
        return solution

    @staticmethod
    def backward(ctx: Any, *cotangent: Tensor) -> tuple[Any, ...]:
        n = ctx.n
        saved: Tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2 + n :]
        grads = ctx.site.backward(saved[:n], saved[n:], needed, cotangent)
        return (None, None, *(None,) * n, *grads)


def respond(site: Site, params: Tensors, context: Tensors) -> Tensors:
    """`params`, unchanged in value, attached to `context` by the implicit function theorem."""
    if not context:
        return tuple(p.detach() for p in params)
    return tuple(_Response.apply(site, len(params), *params, *context))  # type: ignore[no-untyped-call]
