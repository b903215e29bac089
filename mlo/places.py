"""Where the tensors of a module tree hang, and how others are hung there for a while."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor, nn

Buffers = Mapping[str, Tensor | None]
"""Key of a place -> buffer; `None` where a module has reserved one that it has not made yet."""


@dataclasses.dataclass(frozen=True)
class Place:
    """One name of one module; `key` is the first path that leads there."""

    key: str
    module: nn.Module
    name: str


class Places:
    """Every place of a module tree that holds a parameter or a buffer, each once.

    One module may be reached by several paths, and one tensor may hang in several places. A
    functional call by all paths would put the replacement of a module's tensor back as if it were
    the original, so places are listed by module and name.

    Attributes:
        parameters: places of parameters, with the live ones.
        buffers: places of buffers.
    """

    def __init__(self, root: nn.Module) -> None:
        self.parameters: list[tuple[Place, nn.Parameter]] = []
        self.buffers: list[Place] = []
        for path, module in root.named_modules():
            prefix = f"{path}." if path else ""
            for name, p in module._parameters.items():
                if p is not None:
                    self.parameters.append((Place(prefix + name, module, name), p))
            self.buffers += [Place(prefix + name, module, name) for name in module._buffers]

    def live_buffers(self) -> dict[str, Tensor | None]:
        """The buffers as they are, not copied."""
        return {place.key: place.module._buffers[place.name] for place in self.buffers}

    @contextlib.contextmanager
    def holding(self, buffers: Buffers) -> Iterator[dict[str, Tensor | None]]:
        """Hang these buffers inside; the dictionary is filled with what is there at the end."""
        before = self.live_buffers()
        after: dict[str, Tensor | None] = {}
        try:
            for place in self.buffers:
                place.module._buffers[place.name] = buffers[place.key]
            yield after
            after.update(self.live_buffers())
        finally:
            for place in self.buffers:
                place.module._buffers[place.name] = before[place.key]

    def write(self, buffers: Buffers, modules: Iterable[nn.Module]) -> None:
        """Give the live buffers of `modules` these values, in place where shape and dtype allow."""
        chosen = {id(module) for module in modules}
        own = copied(buffers)
        for place in self.buffers:
            if id(place.module) not in chosen:
                continue
            hang(place.module, place.name, own[place.key])


def hang(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Give a buffer this value, in place where shape, dtype and device allow."""
    live = module._buffers[name]
    if live is None or value is None or not _alike(live, value):
        module._buffers[name] = value
    else:
        live.copy_(value)


def copied(buffers: Buffers) -> dict[str, Tensor | None]:
    """Copies without graphs; what hangs in two places hangs there as one copy."""
    return mapped(buffers, lambda t: t.detach().clone())


def mapped(tensors: Buffers, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor | None]:
    """Apply `function` to every tensor once, however many places hold it."""
    images: dict[int, Tensor] = {}
    for t in tensors.values():
        if t is not None and id(t) not in images:
            images[id(t)] = function(t)
    return {key: None if t is None else images[id(t)] for key, t in tensors.items()}


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
