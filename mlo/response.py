r"""The solution of a problem is a tensor, and its backward pass is the hypergradient.

`respond` returns the parameters w of a problem attached to its context c. Backward receives a
cotangent v of w and returns, for every context tensor,

    c_bar = -(dg/dc)^T u,    (dg/dw)^T u = v,

or what the problem's method puts in the place of u. Autograd does the rest: it walks the problems
in reverse topological order, sums the cotangents of all readers, and calls each backward once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mlo.errors import HypergradientWarning, MethodError
from mlo.hypergradients.base import Hypergradient, Result
from mlo.records import ResponseRecord
from mlo.types import PartialTensors, Tensors
from mlo.vectors import shapes


class Needed:
    """Which tensors of a context a derivative is asked for.

    Args:
        mask: one flag per context tensor.
    """

    def __init__(self, mask: Sequence[bool]) -> None:
        self.index = tuple(i for i, need in enumerate(mask) if need)
        self._size = len(mask)

    def of(self, context: Sequence[Tensor]) -> Tensors:
        """Those tensors."""
        return tuple(context[i] for i in self.index)

    def into(self, context: Sequence[Tensor], chosen: Sequence[Tensor]) -> Tensors:
        """The context with others in their places."""
        full = list(context)
        for i, x in zip(self.index, chosen, strict=True):
            full[i] = x
        return tuple(full)

    def spread(self, found: Sequence[Tensor | None]) -> PartialTensors:
        """What was found for them, and `None` for the others."""
        spread: list[Tensor | None] = [None] * self._size
        for i, x in zip(self.index, found, strict=True):
            spread[i] = x
        return tuple(spread)


class Answering(Protocol):
    """Where a response is taken: turns a cotangent of w into cotangents of c."""

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        """One entry per context tensor; `None` where not needed or nothing depends."""


class _Response(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, site: Answering, n: int, *tensors: Tensor) -> Tensors:
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


def respond(site: Answering, params: Tensors, context: Tensors) -> Tensors:
    """`params`, unchanged in value, attached to `context` by the implicit function theorem."""
    if not context:
        return tuple(p.detach() for p in params)
    return tuple(_Response.apply(site, len(params), *params, *context))  # type: ignore[no-untyped-call]


def check_result(
    name: str, method: Hypergradient, result: Result, params: Tensors, context: Tensors
) -> None:
    """A method answered for every tensor of the context.

    Raises:
        MethodError: it did not.
    """
    expected = shapes(context)
    found = shapes(result.grads) if isinstance(result, Result) else type(result).__name__
    fits = isinstance(found, list) and len(found) == len(expected)
    if not fits or any(f not in (None, e) for f, e in zip(found, expected, strict=True)):
        raise MethodError(
            f"problem '{name}': hypergradient={type(method).__name__}, vjp() must return a Result "
            f"with a gradient (or None) of the shape of each tensor of condition.context, "
            f"{expected}, got {found}",
            problem=name,
        )
    start = shapes(result.start) if result.start is not None else None
    if start is not None and start != shapes(params):
        raise MethodError(
            f"problem '{name}': hypergradient={type(method).__name__}, Result.start must be one "
            f"tensor of the shape of each parameter, {shapes(params)}, got {start}",
            problem=name,
        )


def warn_of_failure(where: str, response: ResponseRecord, *, stacklevel: int) -> None:
    """Warn where a response failed; `stacklevel` counts from the caller, who is 1."""
    if response.info.outcome.failed:
        warnings.warn(
            f"{where} through problem '{response.problem}' by {response.method}: "
            f"{response.info.outcome.value}",
            HypergradientWarning,
            stacklevel=stacklevel + 1,
        )
