"""Streams that are saved, built anew and loaded, beside the stream that nothing disturbed."""

from __future__ import annotations

import io
import random

import numpy as np
import torch
from torch.utils.data import DataLoader

from mlo.batch_trees import packed
from mlo.plain import check_plain, copied, differences
from mlo.randomness import RandomState
from mlo.streams import make_streams


class Augmented(torch.utils.data.Dataset):
    """Examples with a draw of each global generator added."""

    def __init__(self, count=11):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {"i": i, "x": i + torch.rand(2), "y": random.random(), "z": np.random.rand()}


class Fixed(Augmented):
    """A function of the index."""

    def __getitem__(self, i):
        return torch.tensor([i, i * i])


class Told:
    """A source of the user's with a state."""

    def __init__(self, state=0):
        self.state = state

    def __iter__(self):
        return iter(range(5))

    def state_dict(self):
        return {"at": self.state}

    def load_state_dict(self, state):
        self.state = state["at"]


def loader(data=None, **settings):
    return DataLoader(Fixed(9) if data is None else data, **settings)


def filed(state):
    """A state after a file of it was read back without executing code."""
    check_plain(state, "state")
    buffer = io.BytesIO()
    torch.save(copied(state), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def stream(source, draws=1, device=None):
    """As an engine makes it: the first batches are drawn."""
    made = make_streams({"train": source}, device)["train"]
    made.present(draws)
    return made


def tick(made, draws):
    """One tick, in which the losses draw at random as well."""
    made.advance(draws)
    torch.rand(3), random.random(), np.random.rand()
    return packed([*made.held], "train")


def made_again(resumed, state):
    """The state of a stream just loaded; that of a loader of torchdata may be put otherwise."""
    found = filed(resumed.state_dict())
    if "own" in found["position"]:
        found["position"]["own"] = state["position"]["own"]
    return found


def follow(make, draws, before, after, each_tick=lambda source, made: None, *, seen=0):
    """Save after `before` ticks, load into a new stream, and go on with both for `after` ticks.

    Returns:
        What differs in batches, random states and the states of the streams at the end.
    """
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    one = make()
    undisturbed = stream(one, draws)
    for _ in range(before):
        tick(undisturbed, draws)
        each_tick(one, undisturbed)
    state, randomness = filed(undisturbed.state_dict()), RandomState.capture()

    def go_on(source, made):
        rows = []
        for _ in range(after):
            rows.append(copied(tick(made, draws)))
            each_tick(source, made)
        end = [made.epochs, RandomState.capture().plain(), copied(made.state_dict())]
        return rows, end

    expected = go_on(one, undisturbed)
    del one, undisturbed
    torch.manual_seed(9), random.seed(9), np.random.seed(9)
    other = make()
    resumed = stream(other, draws)
    for _ in range(seen):
        tick(resumed, draws)
    found = RandomState.capture()
    resumed.load_state_dict(state)
    assert not [*differences(found.plain(), RandomState.capture().plain())]
    randomness.restore()
    assert not [*differences(state, made_again(resumed, state))]
    return [*differences(expected, go_on(other, resumed))]
