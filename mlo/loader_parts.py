"""What a DataLoader draws its order from: generators and samplers, and their states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from mlo.generators import generators_in, restore, state_of
from mlo.plain import check_plain, copied, differences
from mlo.randomness import RandomState

SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers whose order is drawn at random when their first index is asked for."""

STATELESS = (SequentialSampler, *SHUFFLING, BatchSampler, list, tuple, range, torch.Tensor)
"""Samplers whose order is decided by generators, or fixed."""


class LoaderParts:
    """The generators and samplers of a loader, and their states before its epoch and now.

    Attributes:
        generators: every generator that is found in the loader (its data set, samplers, functions).
        samplers: the samplers that have a state: those of the user, and torch's distributed one.
        unknown: samplers whose state nobody can tell.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.generators = generators_in(loader)
        asked = [] if isinstance(loader.dataset, IterableDataset) else _samplers(loader)
        samplers = {id(s): s for s in asked if type(s) not in STATELESS}.values()
        self.samplers = [s for s in samplers if _is_torchs(s) or has_state(s)]
        self.unknown = [s for s in samplers if not (_is_torchs(s) or has_state(s))]
        self._before: dict[str, Any] = {}

    @property
    def owned(self) -> list[object]:
        """What must serve no other loader; torch's own samplers may, if they follow one epoch."""
        return [*self.generators, *(s for s in self.samplers if not _is_torchs(s))]

    def begin(self) -> None:
        """Note the states just before an epoch begins; cheap, for it is done in every epoch."""
        self._before = {"random": RandomState.capture(), **self._present()}

    def plain(self) -> dict[str, Any]:
        """The states before the epoch and now, as plain values."""
        before = {**self._before, "random": self._before["random"].plain()}
        return {"before": before, "now": self._present()}

    def begin_again(self, plain: dict[str, Any]) -> None:
        """Put back what the epoch began with, the random states of the host included."""
        before = plain["before"]
        random = RandomState.from_plain(before["random"])
        self._put(before)
        random.restore()
        self._before = {**before, "random": random}

    def finish(self, plain: dict[str, Any]) -> None:
        """Put back the states at the time of `plain()`."""
        self._put(plain["now"])

    def differing(self, plain: dict[str, Any]) -> list[str]:
        """Which of "samplers" and "generators" are not as at the time of `plain()`."""
        now = self._present()
        return [what for what in now if any(differences(plain["now"][what], now[what]))]

    def counts(self) -> dict[str, int]:
        """How many there are of each."""
        return {what: len(states) for what, states in self._present().items()}

    def _present(self) -> dict[str, Any]:
        return {
            "samplers": [_state(s) for s in self.samplers],
            "generators": [state_of(g) for g in self.generators],
        }

    def _put(self, states: dict[str, Any]) -> None:
        for sampler, state in zip(self.samplers, states["samplers"], strict=True):
            # One that is there already is left alone: loading may move an iterator in use.
            if any(differences(state, _state(sampler))):
                _put_state(sampler, state)
        for generator, state in zip(self.generators, states["generators"], strict=True):
            restore(generator, state)


def _samplers(item: Any) -> Iterator[Any]:
    """The samplers of a loader, those inside torch's own included."""
    for name in ("sampler", "batch_sampler"):
        inner = getattr(item, "__dict__", {}).get(name)
        if inner is not None:
            yield inner
            if type(inner) in STATELESS or is_torchdatas(inner):
                yield from _samplers(inner)


def _is_torchs(sampler: Any) -> bool:
    return type(sampler) is DistributedSampler


def has_state(thing: Any) -> bool:
    """Whether it says where it is, and goes there."""
    return all(callable(getattr(thing, name, None)) for name in ("state_dict", "load_state_dict"))


def is_torchdatas(thing: Any) -> bool:
    """Whether it is of the package torchdata."""
    return type(thing).__module__.partition(".")[0] == "torchdata"


def _state(sampler: Any) -> Any:
    if _is_torchs(sampler):
        return {"epoch": sampler.epoch}
    state = sampler.state_dict()
    check_plain(state, f"the state of a {type(sampler).__name__}")
    return copied(state)


def _put_state(sampler: Any, state: Any) -> None:
    if _is_torchs(sampler):
        sampler.set_epoch(state["epoch"])
    else:
        sampler.load_state_dict(copied(state))
