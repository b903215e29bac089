"""Vector algebra on tuples of tensors; scalars stay 0-dimensional tensors on their device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlo.types import PartialTensors, Tensors, Values


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product, accumulated in float32 or better."""
    terms = [(widened(x) * widened(y)).sum() for x, y in zip(a, b, strict=True)]
    return torch.stack(terms).sum()


def norm(a: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm, in float32 or better."""
    norms = [torch.linalg.vector_norm(widened(entries(x))) for x in a]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def add_scaled(a: Sequence[Tensor], scale: Tensor | float, b: Sequence[Tensor]) -> Tensors:
    """``a + scale * b``, in the dtypes of `a`."""
    if isinstance(scale, Tensor):
        return tuple(x + scale.to(x.dtype) * y for x, y in zip(a, b, strict=True))
    return tuple(x + scale * y for x, y in zip(a, b, strict=True))


def times(a: Sequence[Tensor], b: Sequence[Tensor | float]) -> Tensors:
    """The elementwise product."""
    return tuple(x * y for x, y in zip(a, b, strict=True))


def zeros_like(a: Sequence[Tensor]) -> Tensors:
    """Zeros of the same shapes."""
    return tuple(torch.zeros_like(x) for x in a)


def where(condition: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensors:
    """`a` where the 0-dim condition holds, else `b`; decided on the device."""
    return tuple(torch.where(condition, x, y) for x, y in zip(a, b, strict=True))


def negative(a: Sequence[Tensor | None]) -> PartialTensors:
    """``-a``, with `None` left as it is."""
    return tuple(None if x is None else -x for x in a)


def plus(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> PartialTensors:
    """``a + b``, where `None` is nothing."""
    return tuple(y if x is None else x if y is None else x + y for x, y in zip(a, b, strict=True))


def filled(a: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensors:
    """`a` with zeros where it is `None`."""
    return tuple(torch.zeros_like(y) if x is None else x for x, y in zip(a, like, strict=True))


def dense(a: Sequence[Tensor | None]) -> PartialTensors:
    """The same values without sparse layouts, such as embeddings give."""
    return tuple(x.to_dense() if x is not None and x.is_sparse else x for x in a)


def widened(x: Tensor) -> Tensor:
    """`x` in float32 or better."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def finite(tensors: Sequence[Tensor | None]) -> Tensor:
    """Whether all entries are finite, 0-dim; what is `None` is."""
    present = [entries(x).isfinite().all() for x in tensors if x is not None]
    return torch.stack(present).all() if present else torch.tensor(True)


def rounding(tensors: Sequence[Tensor]) -> float:
    """The rounding unit of the coarsest dtype among them."""
    return max(torch.finfo(x.dtype).eps for x in tensors)


def shapes(tensors: object) -> list[object] | str:
    """The shape of each tensor; `None` stays, and what is no tensor is named by its type."""
    if not isinstance(tensors, tuple | list):
        return type(tensors).__name__
    return [
        tuple(x.shape) if isinstance(x, Tensor) else None if x is None else type(x).__name__
        for x in tensors
    ]


def detached(tensors: Sequence[Tensor]) -> Tensors:
    """The same values without their graphs."""
    return tuple(t.detach() for t in tensors)


def leaves(tensors: Sequence[Tensor]) -> Tensors:
    """The same values as leaves to differentiate with respect to."""
    return tuple(t.detach().requires_grad_() for t in tensors)


def grouped(names: Sequence[str], like: Values, flat: Sequence[Tensor]) -> dict[str, Tensors]:
    """Name -> its part of the tensors of all of them."""
    parts, start = {}, 0
    for name in names:
        parts[name] = tuple(flat[start : start + len(like[name])])
        start += len(like[name])
    return parts


def flat(tensors: Tensors) -> Tensor:
    """All entries in one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflat(vector: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flat`."""
    parts = vector.split([t.numel() for t in like])
    return tuple(p.reshape(t.shape) for p, t in zip(parts, like, strict=True))


def entries(x: Tensor) -> Tensor:
    """The stored entries of a sparse tensor; a dense one as it is."""
    return x.coalesce().values() if x.is_sparse else x
