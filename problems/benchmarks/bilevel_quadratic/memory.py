"""The most memory that a call has in use at once, beyond what was there before."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(function: Callable[[], object]) -> int:
    """Call a function; return the peak of the bytes of all tensors that it makes.

    What is made and freed within one operation of torch is not seen.
    """
    with _Storages() as storages:
        function()
    return storages.peak


class _Storages(TorchDispatchMode):
    """Follows the storages of all tensors that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._add(tree_leaves((args, kwargs)), counted=False)  # what was there before
        found = func(*args, **kwargs)
        self._add(tree_leaves(found), counted=True)
        return found

    def _add(self, leaves: Iterable[object], *, counted: bool) -> None:
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                size = storage.nbytes() if counted else 0
                self._known.add(key)
                self._now += size
                weakref.finalize(storage, self._free, key, size)
        self.peak = max(self.peak, self._now)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
