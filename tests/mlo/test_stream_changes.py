"""Data that are not those of a checkpoint are named when it is loaded."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

from mlo.errors import CheckpointError
from mlo.streams import Stream, make_streams

from .streamed import Augmented, Told, filed, generator, loader, stream, tick


def saved(source, ticks=3):
    one = stream(source)
    for _ in range(ticks):
        tick(one, 1)
    return filed(one.state_dict())


GLOBAL = np.random.default_rng(0)


class Hidden(Augmented):
    """Its generator is a global one, where none looks."""

    def __getitem__(self, i):
        return GLOBAL.normal()


class Forgetful(Told):
    """A sampler whose state is not what it was told to load."""

    def __iter__(self):
        return iter(range(9))

    def load_state_dict(self, state):
        pass


CHANGED = {
    "a list": (lambda: [*range(5)], lambda: [0, 1, 3, 3, 4], "batch 2 is not what it was"),
    "the length of a list": (
        lambda: [*range(5)],
        lambda: [*range(6)],
        "batches: expected 5, .* found 6",
    ),
    "minus nothing": (lambda: [0.0], lambda: [-0.0], "batch 0 is not what it was"),
    "the data of a loader": (
        lambda: loader(range(5)),
        lambda: loader([0, 1, 7, 3, 4]),
        "batch 2 of its epoch, drawn again, is not what it was",
    ),
    "the length of a loader": (
        lambda: loader(range(5)),
        lambda: loader(range(6)),
        "batches: expected 5, .* found 6",
    ),
    "the generators of a loader": (
        lambda: loader(generator=generator()),
        loader,
        "generators: expected 1, .* found 0",
    ),
    "the kind": (lambda: [1, 2, 3], lambda: loader(range(3)), "kind 'sequence', .*found 'loader'"),
    "draws of its own": (
        lambda: loader(Hidden()),
        lambda: loader(Hidden()),
        "no function of the index",
    ),
    "a sampler that forgets": (
        lambda: loader(sampler=Forgetful(1)),
        lambda: loader(sampler=Forgetful(2)),
        "a sampler is not in the state that it was told to load",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_data_that_are_not_those_of_the_checkpoint_are_named(what):
    before, now, found = CHANGED[what]
    state = saved(before())
    with pytest.raises(CheckpointError, match=found) as raised:
        stream(now()).load_state_dict(state)
    assert str(raised.value).startswith("data stream 'train' (")
    assert re.search(r"; (build|resume|the data changed; resume|its state_dict)", str(raised.value))


def test_a_loader_that_ends_too_early_is_named():
    state = saved(loader(batch_sampler=Sized([[0], [1], [2], [3], [4]])), 4)
    with pytest.raises(CheckpointError, match="ends after 3 of the 4 batches"):
        stream(loader(batch_sampler=Sized([[0], [1], [2]]))).load_state_dict(state)


class Sized(Told):
    """Batches of indices that claim to be five."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return 5


def test_a_generator_from_which_others_draw_is_named():
    shared = generator()
    one = stream(loader(shuffle=True, generator=shared))
    tick(one, 1)
    torch.rand(1, generator=shared)
    made = stream(loader(shuffle=True, generator=generator()))
    with pytest.raises(CheckpointError, match=r"'train'.*something else draws from it too"):
        made.load_state_dict(one.state_dict())


def test_a_state_of_the_users_that_no_file_can_hold_is_named():
    with pytest.raises(CheckpointError, match=r"the state of data stream 'train'\['at'\] is a set"):
        stream(Told({1})).state_dict()
    with pytest.raises(CheckpointError, match=r"the state of a Forgetful\['at'\] is a set"):
        stream(loader(sampler=Forgetful({1})))


def test_a_batch_that_no_file_can_hold_is_named():
    with pytest.raises(CheckpointError, match="'train': a batch holds a object"):
        stream([object()]).state_dict()


def test_batches_are_compared_on_the_device_they_are_moved_to():
    made = Stream("train", [torch.ones(2)], torch.device("cpu"))
    state = filed(made.state_dict())
    made.load_state_dict(state)
    assert torch.equal(made.held[0], torch.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_streams({"train": [1]}, torch.device("cpu"))
