"""Streams of loaders with workers: the draws inside workers are drawn again, and none is left."""

from __future__ import annotations

import multiprocessing
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from mlo.errors import CheckpointError

from .streamed import Augmented, Fixed, filed, follow, generator, stream, tick

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This DataLoader will create .* worker processes:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata's own
]


def loader(workers, sampler=None, data=None, kind=DataLoader, **settings):
    """Batches of four of eleven examples, loaded by so many workers."""
    data = Augmented() if data is None else data
    size = {} if "batch_size" in settings or "batch_sampler" in settings else {"batch_size": 4}
    return kind(data, sampler=sampler, num_workers=workers, **size, **settings)


SOURCES = {
    "shuffled, one worker": lambda: loader(1, shuffle=True),
    "shuffled by its generator": lambda: loader(3, shuffle=True, generator=generator()),
    "with replacement, drawn ahead": lambda: loader(
        3, RandomSampler(range(11), replacement=True, num_samples=90, generator=generator())
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=2, deadline=None)
@given(draws=st.integers(1, 2), before=st.integers(0, 9))
def test_what_workers_drew_is_drawn_again(source, draws, before):
    assert follow(SOURCES[source], draws, before, 8) == []


@pytest.mark.parametrize("before", [2, 3])
def test_the_end_of_an_epoch_is_a_place_to_stop_at(before):
    assert follow(lambda: loader(2, shuffle=True), 1, before, 5) == []


def test_workers_of_what_was_drawn_before_loading_are_ended():
    one = stream(loader(2, data=Fixed()))
    tick(one, 1)
    state = filed(one.state_dict())
    del one
    made = stream(loader(2, data=Fixed()))
    made.load_state_dict(state)
    made.load_state_dict(state)
    waited = time.monotonic() + 10
    while len(multiprocessing.active_children()) > 2 and time.monotonic() < waited:
        time.sleep(0.05)
    assert len(multiprocessing.active_children()) == 2
    del made
    while multiprocessing.active_children() and time.monotonic() < waited:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


class Scaled(Fixed):
    def __getitem__(self, i):
        return 2.0 * torch.tensor([i, i * i])


def test_a_data_set_that_changed_under_workers_is_named():
    one = stream(loader(1, data=Fixed()))
    tick(one, 2)
    made = stream(loader(1, data=Scaled()))
    with pytest.raises(CheckpointError, match=r"'train' \(DataLoader\): batch 1 of its epoch"):
        made.load_state_dict(one.state_dict())


def test_another_number_of_workers_is_named():
    state = stream(loader(1)).state_dict()
    with pytest.raises(CheckpointError, match=r"num_workers: expected 1, .* found 0"):
        stream(loader(0)).load_state_dict(state)


class Stretch(IterableDataset):
    """Numbers in order, of which every worker gives its share; it says where it is."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        step, first = (info.num_workers, info.id) if info else (1, 0)
        numbers = range(first, 22, step)
        while self.at < len(numbers):
            self.at += 1
            yield torch.tensor(numbers[self.at - 1])
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Numbers(IterableDataset):
    """Numbers at random, which keep no position."""

    def __iter__(self):
        return iter(torch.rand(13))


def stateful(workers, sampler=None, data=None, **settings):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    return loader(workers, sampler, data or Fixed(), torchdata.StatefulDataLoader, **settings)


def own_generator():
    return stateful(0, data=Augmented(), shuffle=True, generator=generator())


def distributed(workers):
    return stateful(workers, DistributedSampler(range(22), 2, 1, seed=4))


STATEFUL = {
    "shuffled": lambda: stateful(0, data=Augmented(), shuffle=True),
    "shuffled by its generator": own_generator,
    "in order": lambda: stateful(0, data=Augmented()),
    "by a sampler of torch": lambda: stateful(0, RandomSampler(range(11))),
    "weighted": lambda: stateful(0, WeightedRandomSampler([1.0, 2.0] * 5, 9)),
    "weighted by a generator": lambda: stateful(
        0, WeightedRandomSampler([1.0, 2.0] * 5, 9, generator=generator())
    ),
    "without batches": lambda: stateful(0, batch_size=None),
    "distributed": lambda: distributed(0),
    "an iterable data set": lambda: stateful(0, data=Stretch()),
    "an iterable data set without a state": lambda: stateful(0, data=Numbers()),
}

BUSY = {
    "shuffled by its generator": lambda: stateful(2, shuffle=True, generator=generator()),
    "by a sampler of torch": lambda: stateful(2, RandomSampler(range(11))),
    "snapshots now and then": lambda: stateful(2, shuffle=True, snapshot_every_n_steps=2),
    "an iterable data set": lambda: stateful(2, data=Stretch()),
    "distributed": lambda: distributed(2),
}


def next_epoch(source, made):
    """What a callback does at the end of an epoch."""
    if hasattr(source.sampler, "set_epoch") and made.used % 3 == 0:
        source.sampler.set_epoch(made.used // 3)


@pytest.mark.parametrize("source", STATEFUL)
@settings(max_examples=8, deadline=None)
@given(draws=st.integers(1, 2), before=st.integers(0, 7), seen=st.integers(0, 4))
def test_a_stateful_loader_goes_on_by_its_own_state(source, draws, before, seen):
    assert follow(STATEFUL[source], draws, before, 10, next_epoch, seen=seen) == []


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("source", BUSY)
def test_a_stateful_loader_with_workers_goes_on_by_its_own_state(source, before):
    assert follow(BUSY[source], 1, before, 7, next_epoch) == []


def test_a_stateful_loader_loads_nothing_again():
    class Counting(Fixed):
        loaded = 0

        def __getitem__(self, i):
            self.loaded += 1
            return super().__getitem__(i)

    one = stream(stateful(0, data=Counting(40), shuffle=True))
    for _ in range(8):
        tick(one, 1)
    made = stream(stateful(0, data=Counting(40), shuffle=True))
    made.load_state_dict(one.state_dict())
    assert made.source.dataset.loaded == 4, "the first batch, when the engine is built"
