"""Where streams are: saved, built anew and loaded, they go on as if nothing had happened."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from mlo import streams
from mlo.errors import CheckpointError
from mlo.plain import differences
from mlo.randomness import RandomState
from problems.benchmarks.bilevel_quadratic.program import Batches
from problems.datasets import stream as dataset_stream

from .streamed import Augmented, Fixed, filed, follow, generator, stream, tick

Pair = collections.namedtuple("Pair", ["x", "y"])


class Steps(Sequence):
    """A sequence of the user's, that may draw at random."""

    def __init__(self, draws):
        self.draws = draws

    def __len__(self):
        return 5

    def __getitem__(self, i):
        if i >= 5:
            raise IndexError(i)
        return torch.rand(2) if self.draws else i


class OwnSampler:
    """An order of the user's that goes on from epoch to epoch."""

    def __init__(self):
        self.generator, self.epoch = generator(), 0

    def __iter__(self):
        self.epoch += 1
        return iter(torch.randperm(11, generator=self.generator).tolist())

    def __len__(self):
        return 11

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


class Skipping:
    """A sampler of the user's whose next order leaves out what was given when it was saved."""

    def __init__(self):
        self.given, self.left_out = 0, 0

    def __iter__(self):
        self.given, self.left_out = self.left_out, 0
        for i in range(self.given, 11):
            self.given += 1
            yield i
        self.given = 0

    def __len__(self):
        return 11

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = self.left_out = state["given"]


class Counted:
    """A source of the user's that says where it is."""

    def __init__(self):
        self.at, self.epoch = 0, 0

    def __iter__(self):
        while self.at < 4:
            self.at += 1
            yield (self.epoch, self.at)
        self.at, self.epoch = 0, self.epoch + 1

    def state_dict(self):
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state):
        self.at, self.epoch = state["at"], state["epoch"]


class Drawing(Augmented):
    """A data set with a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = generator(8)

    def __getitem__(self, i):
        return torch.rand(2, generator=self.generator)


def loader(sampler=None, data=None, **settings):
    """Batches of four of the eleven augmented examples."""
    data = Augmented() if data is None else data
    size = {} if "batch_size" in settings or "batch_sampler" in settings else {"batch_size": 4}
    return DataLoader(data, sampler=sampler, **size, **settings)


def one_generator():
    shared = generator()
    return loader(RandomSampler(range(11), generator=shared), generator=shared)


def lazily():
    """Its generator is drawn from all through the epoch."""
    order = RandomSampler(range(11), replacement=True, num_samples=70, generator=generator())
    return loader(order, batch_size=20)


def pairs(examples):
    return Pair(torch.stack([e["x"] for e in examples]), [{"y": [e["y"] for e in examples]}])


def tensors(batch=4, drop_last=True):
    x = torch.arange(33.0).reshape(11, 3)
    return dataset_stream(
        x, torch.arange(11), batch_size=batch, generator=generator(), drop_last=drop_last
    )


SOURCES = {
    "a list": lambda: [torch.ones(2) * i for i in range(5)],
    "a tuple of named tuples": lambda: tuple(Pair(np.arange(i + 1), {"s": "a"}) for i in range(4)),
    "a range": lambda: range(3),
    "a list of one": lambda: [None],
    "an array": lambda: np.arange(12.0).reshape(4, 3),
    "a deque": lambda: collections.deque(range(5)),
    "a sequence": lambda: Steps(draws=False),
    "a sequence that draws": lambda: Steps(draws=True),
    "in order": loader,
    "without batches": lambda: loader(batch_size=None),
    "drop_last": lambda: loader(drop_last=True, shuffle=True),
    "shuffled": lambda: loader(shuffle=True),
    "shuffled by its generator": lambda: loader(shuffle=True, generator=generator()),
    "one generator in two places": one_generator,
    "with replacement": lambda: loader(RandomSampler(range(11), replacement=True)),
    "with replacement, drawn lazily": lazily,
    "a subset": lambda: loader(SubsetRandomSampler([1, 3, 5, 6, 9])),
    "a subset by a generator": lambda: loader(SubsetRandomSampler([1, 3, 5, 7, 9], generator())),
    "weighted": lambda: loader(WeightedRandomSampler([1.0, 2.0] * 5, 9)),
    "weighted by a generator": lambda: loader(
        WeightedRandomSampler([1.0, 2.0] * 5, 9, generator=generator())
    ),
    "batches of indices": lambda: loader(
        batch_sampler=BatchSampler(RandomSampler(range(11)), 3, False)
    ),
    "lists of indices": lambda: loader(batch_sampler=[[1, 2], [0], [5, 4, 3]]),
    "a list of indices": lambda: loader([5, 3, 1, 0, 7]),
    "a sampler of the user's": lambda: loader(OwnSampler()),
    "a sampler that skips": lambda: loader(Skipping()),
    "a sampler of the user's in a BatchSampler": lambda: loader(
        batch_sampler=BatchSampler(OwnSampler(), 4, True)
    ),
    "named tuples": lambda: loader(collate_fn=pairs, shuffle=True),
    "a data set with a generator": lambda: loader(data=Drawing(), shuffle=True),
    "of this project": tensors,
    "of this project, to the last": lambda: tensors(3, drop_last=False),
    "rows of this project": lambda: Batches(11, 4, generator()),
    "a source that says where it is": Counted,
}

ENDLESS = 12
"""Ticks that go through more than 2.5 epochs of every source, at one draw a tick."""


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=8, deadline=None)
@given(draws=st.integers(1, 3), before=st.integers(0, 11), seen=st.integers(0, 5))
def test_a_resumed_stream_gives_what_the_undisturbed_one_gives(source, draws, before, seen):
    assert follow(SOURCES[source], draws, before, ENDLESS, seen=seen) == []


@pytest.mark.parametrize("before", range(9))
@pytest.mark.parametrize("source", ["shuffled", "a list", "rows of this project"])
def test_every_place_in_an_epoch_is_one_to_stop_at(source, before):
    assert follow(SOURCES[source], 1, before, ENDLESS) == []


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("when", ["at its end", "in its middle"])
def test_the_epoch_of_a_distributed_sampler_is_part_of_the_place(before, when):
    def make():
        return loader(DistributedSampler(range(11), 2, 1, seed=4), batch_size=2)

    def set_epoch(source, made):
        if made.used % 3 == (0 if when == "at its end" else 2):
            source.sampler.set_epoch(made.used // 3 + 1)

    assert follow(make, 1, before, ENDLESS, set_epoch) == []
    seen = {}

    def note(source, made):
        set_epoch(source, made)
        seen.setdefault(made.used // 3, []).append(made.held[0]["i"].tolist())

    follow(make, 1, 0, ENDLESS, note)
    assert len({str(order) for order in seen.values()}) > 2, "epochs differ in their order"


@pytest.mark.parametrize("source", ["a list", "a source that says where it is"])
def test_batches_that_were_only_looked_at_are_still_ahead(source):
    one, other = (stream(SOURCES[source](), draws=3) for _ in range(2))
    tick(one, 1)
    other.load_state_dict(filed(one.state_dict()))
    for draws in (1, 1, 3, 2):
        assert not [*differences(tick(one, draws), tick(other, draws))]


def test_the_last_batch_is_compared_where_the_device_has_it(monkeypatch):
    monkeypatch.setattr(streams, "to_device", lambda batch, device: batch.to(torch.float32))
    state = filed(stream([torch.ones(2)], device=torch.device("cpu")).state_dict())
    made = stream([torch.ones(2)], device=torch.device("cpu"))
    made.load_state_dict(state)
    assert made.held[0].dtype == torch.float32


def test_the_state_of_a_source_is_that_of_the_moment():
    source = Counted()
    source.state_dict = lambda kept={}: kept.update(at=torch.tensor(source.at), epoch=0) or kept
    made = stream(source)
    state = made.state_dict()
    tick(made, 3)
    made.state_dict()
    assert int(state["position"]["own"]["at"]) == 1


def test_a_random_state_is_the_same_from_plain_values():
    def drawn():
        return [
            f(0, 1) for f in (random.gauss, random.uniform, np.random.normal, np.random.uniform)
        ]

    random.seed(4), np.random.seed(4)
    drawn()  # of a pair of normal numbers the second is kept
    state = RandomState.capture()
    expected = [*drawn(), *torch.randn(3).tolist()]
    RandomState.from_plain(filed(state.plain())).restore()
    assert [*drawn(), *torch.randn(3).tolist()] == expected


def test_a_generator_of_numpy_that_is_not_its_own_is_named():
    state = RandomState(random.getstate(), {"bit_generator": "PCG64"}, torch.get_rng_state(), ())
    with pytest.raises(CheckpointError, match="expected MT19937, found PCG64"):
        state.plain()


def test_a_sequential_sampler_over_a_list_needs_nothing():
    sampler = SequentialSampler(range(11))
    assert follow(lambda: loader(sampler, data=Fixed()), 2, 3, ENDLESS) == []
