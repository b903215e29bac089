"""Batches as plain values: any pytree goes into a file, and no class is looked up to read it.

A dictionary, a list, a tuple, an array and any other node of a pytree become a dictionary whose
`kind` says what it was; tensors, numbers, words and `None` stand for themselves. A node that is
none of Python's own (a named tuple, a registered class) is made again by that of another batch of
the stream, at the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mlo.errors import CheckpointError
from mlo.plain import LEAVES

ROWS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "Size": torch.Size}
"""Nodes of numbered parts only."""


def packed(batch: Any, stream: str) -> Any:
    """A batch as plain values (see `mlo.plain`); tensors are not copied, only detached.

    Args:
        batch: a pytree of tensors, numbers, words, `None` and numeric arrays.
        stream: whose it is.

    Raises:
        CheckpointError: it holds something else; the message names the stream and the type.
    """
    kind = type(batch)
    if kind in LEAVES or isinstance(batch, torch.device | torch.dtype):
        return batch
    if isinstance(batch, Tensor):
        return _laid_out(_tensor(batch, stream))
    if kind in ROWS.values():
        return {"kind": kind.__name__, "parts": [packed(part, stream) for part in batch]}
    if kind is dict:
        keys = [_key(key, stream) for key in batch]
        return {"kind": "dict", "keys": keys, "parts": [*_all(batch.values(), stream)]}
    if isinstance(batch, np.generic) or kind in (np.ndarray, np.memmap):
        scalar = isinstance(batch, np.generic)
        return {"kind": "scalar" if scalar else "array", "values": _values(batch, stream)}
    parts, spec = _opened(batch)
    if spec is None:
        raise _refusal(stream, kind.__name__)
    return {
        "kind": "node",
        "type": _name(spec.type),
        "context": _context(spec.context, stream, kind.__name__),
        "parts": [*_all(parts, stream)],
    }


def unpacked(plain: Any, like: Any, stream: str) -> Any:
    """The batch that `packed` was given; every tensor stays on its device.

    Args:
        plain: what `packed` returned.
        like: any batch of the stream; its nodes make those that are none of Python's own.
        stream: whose it is.

    Raises:
        CheckpointError: `like` has no such node where one is needed, or `plain` is damaged.
    """
    if not isinstance(plain, dict):
        return plain
    kind = plain.get("kind")
    if "values" in plain:
        return _of_values(plain)
    if kind == "named":
        if not _has_name(like) or _name(like) != plain["name"]:
            raise _disagreement(stream, plain["name"], like)
        return like
    if kind in ROWS:
        return ROWS[kind](_made(plain["parts"], _items(like, ROWS[kind]), stream))
    if kind == "dict":
        likes = [
            like.get(key, _NOTHING) if type(like) is dict else _NOTHING for key in plain["keys"]
        ]
        return dict(zip(plain["keys"], _made(plain["parts"], likes, stream), strict=True))
    if kind == "node":
        return _node(plain, like, stream)
    raise CheckpointError(
        f"data stream '{stream}': a batch of the checkpoint has a part of kind {kind!r}, which "
        "this version does not know; the file is damaged or of another version"
    )


def _node(plain: dict[str, Any], like: Any, stream: str) -> Any:
    parts, spec = _opened(like)
    if spec is None or _name(spec.type) != plain["type"]:
        raise _disagreement(stream, plain["type"], like)
    context = unpacked(plain["context"], spec.context, stream)
    return pytree.SUPPORTED_NODES[spec.type].unflatten_fn(
        _made(plain["parts"], parts, stream), context
    )


def _made(parts: list[Any], likes: list[Any], stream: str) -> list[Any]:
    """Every part; of batches of different sizes the last of `likes` stands for those beyond it."""
    likes = likes or [_NOTHING]
    return [unpacked(part, likes[min(i, len(likes) - 1)], stream) for i, part in enumerate(parts)]


def _items(like: Any, kind: Callable[[Any], Any]) -> list[Any]:
    return [*like] if type(like) is kind else []


def _all(parts: Any, stream: str) -> list[Any]:
    return [packed(part, stream) for part in parts]


def _opened(item: Any) -> tuple[list[Any], Any]:
    """The children of a node of a pytree, and what it is; `None` for a leaf."""
    parts, spec = pytree.tree_flatten(item, is_leaf=lambda part: part is not item)
    return (parts, spec) if spec.type in pytree.SUPPORTED_NODES else ([], None)


def _context(context: Any, stream: str, node: str) -> Any:
    """What a node is besides its children, with classes and functions by name only."""
    if type(context) in (list, tuple):
        parts = [_context(part, stream, node) for part in context]
        return {"kind": type(context).__name__, "parts": parts}
    if _has_name(context):
        return {"kind": "named", "name": _name(context)}
    try:
        return packed(context, stream)
    except CheckpointError as error:
        raise _refusal(stream, f"{node} with a {type(context).__name__} in its context") from error


def _has_name(thing: Any) -> bool:
    return hasattr(thing, "__module__") and hasattr(thing, "__qualname__")


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _key(key: Any, stream: str) -> Any:
    if type(key) not in LEAVES:
        raise _refusal(stream, f"dictionary with the key {key!r} of type {type(key).__name__}")
    return key


def _tensor(leaf: Tensor, stream: str) -> Tensor:
    """The values alone: a class of its own or a nest of tensors cannot be read without its code."""
    values = leaf.detach()
    if type(values) is not Tensor or values.is_nested or values.is_quantized:
        raise _refusal(stream, type(leaf).__name__)
    return values.resolve_conj().resolve_neg()


def _laid_out(values: Tensor) -> Any:
    """A tensor with gaps between its entries keeps them: sums add in the order of the memory."""
    if values.layout != torch.strided or values.is_contiguous():
        return values
    if torch.empty_like(values).stride() == values.stride():
        return values
    return {"kind": "strided", "values": values.contiguous(), "strides": list(values.stride())}


def _of_values(plain: dict[str, Any]) -> Any:
    if plain["kind"] == "strided":
        return _strided(plain["values"], plain["strides"])
    array = plain["values"].numpy()
    return array if plain["kind"] == "array" else array[()]


def _strided(values: Tensor, strides: list[int]) -> Tensor:
    """These values in that layout; along a stride of 0 all are the same."""
    once = [1 if stride == 0 else size for size, stride in zip(values.shape, strides, strict=True)]
    laid = torch.empty_strided(once, strides, dtype=values.dtype, device=values.device)
    laid.copy_(values[tuple(slice(0, size) for size in once)])
    return laid.expand(values.shape)


def _values(array: Any, stream: str) -> Tensor:
    """The values of a numeric array or scalar of NumPy."""
    whole = np.asarray(array)
    usable = whole if whole.flags.writeable and whole.flags.c_contiguous else whole.copy("C")
    try:
        return torch.from_numpy(usable)
    except (TypeError, ValueError) as error:
        raise _refusal(stream, f"{type(array).__name__} of dtype {whole.dtype}") from error


def _refusal(stream: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"data stream '{stream}': a batch holds a {what}, which no checkpoint can hold safely; "
        "expected a pytree of tensors, numbers, words, None and numeric arrays"
    )


def _disagreement(stream: str, wanted: str, like: Any) -> CheckpointError:
    kind = _name(like) if _has_name(like) else type(like).__name__
    found = "nothing" if like is _NOTHING else f"a {kind}"
    return CheckpointError(
        f"data stream '{stream}': a batch of the checkpoint has a {wanted} where the batches now "
        f"have {found}; build the engine with data of the same structure"
    )


class _Nothing:
    """Stands for a part that the other batch does not have."""


_NOTHING = _Nothing()
