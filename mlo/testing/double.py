"""An engine in double precision for a while, so that differences can be told from errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mlo.engine import Engine


@contextlib.contextmanager
def in_double(engine: Engine) -> Iterator[None]:
    """Parameters, buffers, optimizer states and present batches in float64 inside.

    Afterwards the very tensors of before are back, bit for bit.
    """
    modules = {id(m): m for p in engine.problems.values() for m in p.module.modules()}.values()
    params = {id(p): p for m in modules for p in m._parameters.values() if p is not None}.values()
    optimizers = [p.optimizer for p in engine.problems.values()]
    streams = list(engine._streams.values())
    data, grads = [(p, p.data) for p in params], [(p, p.grad) for p in params]
    buffers = [(m, name, b) for m in modules for name, b in m._buffers.items()]
    states = [(s, dict(s)) for o in optimizers for s in o.state.values() if isinstance(s, dict)]
    batches = [(s, s.held, s._ahead) for s in streams]
    restarts = engine._mover.restarts
    fresh = restarts.fresh
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        for p, values in data:
            p.grad = None
            p.data = _double(values)
        for module, name, buffer in buffers:
            module._buffers[name] = _double(buffer)
        for state, entries in states:
            state.update({k: _double(v) if _is_vector(v) else v for k, v in entries.items()})
        restarts.fresh = tree_map(lambda x: _double(x) if _is_vector(x) else x, fresh)
        for stream, held, ahead in batches:
            stream.held, stream._ahead = tree_map(_double, held), tree_map(_double, ahead)
        yield
    finally:
        torch.set_default_dtype(default)
        restarts.fresh = fresh
        for p, values in data:
            p.grad = None
            p.data = values
        for p, grad in grads:
            p.grad = grad
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for state, entries in states:
            state.clear()
            state.update(entries)
        for stream, held, ahead in batches:
            stream.held, stream._ahead = held, ahead


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _is_vector(x: Any) -> bool:
    """Not the step counters of optimizers, which are 0-dim."""
    return isinstance(x, Tensor) and x.dim() > 0
