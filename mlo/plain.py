"""What a checkpoint may hold: tensors, numbers, words, `None`, and containers of these."""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlo.errors import CheckpointError

LEAVES = (bool, int, float, str, type(None))

_BITS = 2039
"""Of a whole number that torch reads with `weights_only`."""


def check_plain(value: Any, path: str) -> None:
    """Make sure that a file can hold a value and give it back without executing code.

    Raises:
        CheckpointError: it holds something else; the message says where.
    """
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise CheckpointError(
            f"checkpoint: {path} is a whole number of {value.bit_length()} bits; a file that "
            f"executes no code holds up to {_BITS}"
        )
    if isinstance(value, Tensor) and type(value) not in (Tensor, nn.Parameter):
        raise CheckpointError(
            f"checkpoint: {path} is a {type(value).__name__} of shape {tuple(value.shape)}, a kind "
            "of tensor that no checkpoint gives back; expected plain tensors"
        )
    if type(value) in LEAVES or isinstance(value, Tensor | torch.device | torch.dtype):
        return
    if type(value) in (list, tuple):
        for i, item in enumerate(value):
            check_plain(item, f"{path}[{i}]")
    elif type(value) in (dict, collections.OrderedDict, collections.Counter):
        for key, item in value.items():
            if type(key) not in LEAVES:
                raise CheckpointError(
                    f"checkpoint: {path} has the key {key!r} of type {type(key).__name__}; "
                    "expected keys that are words or numbers"
                )
            check_plain(item, f"{path}[{key!r}]")
    else:
        raise CheckpointError(
            f"checkpoint: {path} is a {type(value).__name__}, which no checkpoint can hold safely; "
            "expected tensors, numbers, words, None, or lists, tuples and dictionaries of these"
        )


def mapped_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with every tensor replaced, each once, however often it occurs."""
    images: dict[int, Tensor] = {}

    def walk(item: Any) -> Any:
        if isinstance(item, Tensor):
            if id(item) not in images:
                images[id(item)] = function(item)
            return images[id(item)]
        if isinstance(item, dict):
            twin = copy.copy(item)  # some schedulers need the Counter that they hold
            for key, part in item.items():
                twin[key] = walk(part)
            return twin
        if type(item) in (list, tuple):
            return type(item)(walk(part) for part in item)
        # What is no plain value may change in place all the same.
        return item if type(item) in LEAVES else copy.deepcopy(item)

    return walk(value)


def copied(value: Any) -> Any:
    """The same containers with copies of all tensors."""
    return mapped_tensors(value, lambda t: t.detach().clone())


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, value before, value now) for every part that is not bit for bit the same."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), inner)
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple):
        if len(before) != len(now):
            yield path, before, now
            return
        for i, (a, b) in enumerate(zip(before, now, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif not same(before, now):
        yield path, before, now


def same(a: Any, b: Any) -> bool:
    """Whether two leaves are the same, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _same_tensors(a, b)
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()))
    return bool(a == b)


def _same_tensors(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device, a.layout) != (b.shape, b.dtype, b.device, b.layout):
        return False
    if a.layout != torch.strided:
        return _same_tensors(a.to_dense(), b.to_dense())
    return a.numel() == 0 or torch.equal(_bits(a), _bits(b))


def numbers(value: Any) -> Any:
    """The same containers, with doubles and whole numbers of NumPy as those of Python."""
    if isinstance(value, np.float64 | np.integer | np.bool_):
        return value.item()
    if isinstance(value, dict):
        twin = copy.copy(value)
        for key, part in value.items():
            twin[key] = numbers(part)
        return twin
    if type(value) in (list, tuple):
        return type(value)(numbers(part) for part in value)
    return value


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""What stands for a part that is not there."""


def _bits(t: Tensor) -> Tensor:
    """The bytes of a tensor: NaN is NaN, and -0.0 is not 0.0."""
    return t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
