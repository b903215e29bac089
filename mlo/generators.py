"""Random generators that objects hold: found, and their states as plain values."""

from __future__ import annotations

import functools
import itertools
import random
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Generator = torch.Generator | np.random.RandomState | np.random.Generator | random.Random

KINDS = (torch.Generator, np.random.RandomState, np.random.Generator, random.Random)

_DEEPEST, _WIDEST, _MOST = 8, 64, 20_000
"""How deep objects are looked into, of containers how many entries, and how many in all."""

_LEAVES = (bool, int, float, complex, str, bytes, type(None))
_BLIND = (Tensor, np.ndarray, type, nn.Module, types.ModuleType)
_CONTAINERS: dict[type, Callable[[Any], Iterable[Any]]] = {
    dict: dict.values,
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
}
_DICT = "__dict__"


def generators_in(thing: Any) -> list[Generator]:
    """The generators that an object holds: in attributes, containers, partials and closures.

    Those behind many entries of long containers are not found, and none in code that is not Python.
    """
    seen: dict[int, Any] = {}
    found: dict[int, Generator] = {}

    def look(item: Any, depth: int) -> None:
        known = type(item) in _LEAVES or id(item) in seen
        if known or depth > _DEEPEST or len(seen) > _MOST:
            return
        seen[id(item)] = item
        if isinstance(item, KINDS):
            if not any(item is known for known in _GLOBAL):
                found[id(item)] = item
            return
        for part in list(_parts(item)):
            look(part, depth + 1)

    look(thing, 0)
    return list(found.values())


def state_of(generator: Generator) -> Any:
    """Its state, as plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        version, words, gauss = generator.getstate()
        return [version, torch.tensor(words, dtype=torch.int64), gauss]
    return _plain(_bits(generator))


def restore(generator: Generator, state: Any) -> None:
    """Put such a state back."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words.tolist()), gauss))
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_array(state))
    else:
        generator.bit_generator.state = _array(state)


def _bits(generator: np.random.RandomState | np.random.Generator) -> Any:
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(value.astype(np.int64)), "dtype": str(value.dtype)}
    return value.item() if isinstance(value, np.generic) else value


def _array(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return value["array"].numpy().astype(value["dtype"])
    return {key: _array(part) for key, part in value.items()}


_GLOBAL = (random._inst, np.random.mtrand._rand)
"""Saved as the random state of the process, and found in every function that draws from them."""


def _parts(item: Any) -> Iterator[Any]:
    """What an object holds, as far as it may hold generators; no code of its own is called."""
    if isinstance(item, _BLIND):
        return
    for kind, entries in _CONTAINERS.items():
        if isinstance(item, kind):
            yield from itertools.islice(entries(item), _WIDEST)
    if isinstance(item, functools.partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, types.FunctionType):
        yield from (item.__defaults__, item.__kwdefaults__)
        yield from (_content(cell) for cell in item.__closure__ or ())
    elif isinstance(item, types.MethodType | types.BuiltinMethodType):
        yield item.__self__
    else:
        yield from _attributes(item)


def _attributes(item: Any) -> Iterator[Any]:
    for kind in type(item).__mro__:
        for member in vars(kind).values():
            if isinstance(member, types.MemberDescriptorType):  # of __slots__
                yield _read(member, item)
            elif isinstance(member, types.GetSetDescriptorType) and member.__name__ == _DICT:
                yield member.__get__(item)


def _content(cell: types.CellType) -> Any:
    return _or_none(lambda: cell.cell_contents, ValueError)


def _read(member: types.MemberDescriptorType, item: Any) -> Any:
    return _or_none(lambda: member.__get__(item), AttributeError)


def _or_none(read: Callable[[], Any], empty: type[Exception]) -> Any:
    """What is there; a cell or a slot may hold nothing yet."""
    try:
        return read()
    except empty:
        return None
