"""Random generators that objects hold: found, and their states as plain values."""

from __future__ import annotations

import itertools
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Generator = torch.Generator | np.random.RandomState | np.random.Generator | random.Random

KINDS = (torch.Generator, np.random.RandomState, np.random.Generator, random.Random)

_DEEPEST, _WIDEST = 8, 64
"""How deep objects are looked into, and of containers how many entries; data have no end."""


def generators_in(thing: Any) -> list[Generator]:
    """The generators that an object holds: in attributes, containers, partials and closures.

    Those in entries of long containers are not found, and none behind code that is not Python's.
    """
    seen: dict[int, Any] = {}
    found: dict[int, Generator] = {}

    def look(item: Any, depth: int) -> None:
        if id(item) in seen or depth > _DEEPEST:
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
    """What an object holds, as far as it may hold generators."""
    if isinstance(item, Tensor | np.ndarray | str | bytes | type | nn.Module | types.ModuleType):
        return
    if isinstance(item, dict):
        yield from itertools.islice(item.values(), _WIDEST)
    elif isinstance(item, list | tuple | set):
        yield from itertools.islice(item, _WIDEST)
    else:
        yield from list(getattr(item, "__dict__", {}).values())
        slots = getattr(type(item), "__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        yield from (getattr(item, name, None) for name in names)
        for name in ("__self__", "func", "args", "keywords", "__defaults__", "__kwdefaults__"):
            yield getattr(item, name, None)
        for cell in getattr(item, "__closure__", None) or ():
            try:
                yield cell.cell_contents
            except ValueError:  # it is empty
                continue
