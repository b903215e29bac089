"""Streams that cannot be resumed exactly are named when built; data that changed, when loaded."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

import mlo
from mlo.errors import ResumeWarning
from mlo.randomness import RandomState
from mlo.streams import make_streams

from .streamed import Fixed, Told, filed, generator, loader, stream, tick

WORKERS = "ignore:This DataLoader will create .* worker processes:UserWarning"


class Unsized:
    def __iter__(self):
        return iter([1, 2, 3])


class Shuffled(list):
    def __iter__(self):
        return iter(random.sample(range(3), 3))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(range(9))


class Order:
    """A sampler of the user's without a state."""

    def __iter__(self):
        return iter(range(9))


class Backwards(RandomSampler):
    def __iter__(self):
        return iter(range(8, -1, -1))


class Mine(DataLoader):
    def __iter__(self):
        return iter([1, 2])


def stateful(**settings):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    return torchdata.StatefulDataLoader(Fixed(9), **settings)


def torchdatas_sampler():
    sampler = pytest.importorskip("torchdata.stateful_dataloader.sampler")
    return loader(sampler=sampler.StatefulDistributedSampler(range(9), 2, 0))


ALONE = {
    "an iterator": (lambda: iter([1, 2]), "list_iterator", "an iterator is used up as it goes"),
    "a generator": (lambda: (i for i in range(3)), "generator", "an iterator is used up"),
    "an iterable": (Unsized, "Unsized", "keeps no position; give it state_dict"),
    "a set": (lambda: {1, 2}, "set", "keeps no position"),
    "a list in an order of its own": (lambda: Shuffled([1]), "Shuffled", "keeps no position"),
    "a loader of the user's": (lambda: Mine(range(3)), "Mine", "keeps no position"),
    "an iterable data set": (lambda: loader(Endless()), "DataLoader", "an IterableDataset, which"),
    "persistent workers": (
        lambda: loader(num_workers=1, persistent_workers=True),
        "DataLoader",
        "persistent_workers=True",
    ),
    "out of order": (
        lambda: loader(num_workers=1, in_order=False),
        "DataLoader",
        "in_order=False",
    ),
    "a sampler": (lambda: loader(sampler=Order()), "DataLoader", "its Order keeps no position"),
    "a batch sampler": (
        lambda: loader(batch_sampler=Order()),
        "DataLoader",
        "its Order keeps no position",
    ),
    "a sampler in a batch sampler": (
        lambda: loader(batch_sampler=BatchSampler(Order(), 2, False)),
        "DataLoader",
        "its Order keeps no position",
    ),
    "a sampler that inherits": (
        lambda: loader(sampler=Backwards(range(9))),
        "DataLoader",
        "its Backwards keeps no position",
    ),
    "the generator of all": (
        lambda: loader(shuffle=True, generator=torch.default_generator),
        "DataLoader",
        "draws from torch.default_generator",
    ),
    "a sampler of torchdata": (
        torchdatas_sampler,
        "DataLoader",
        "StatefulDistributedSampler is made for another loader",
    ),
    "a stateful loader, out of order": (
        lambda: stateful(num_workers=1, in_order=False),
        "StatefulDataLoader",
        "in_order=False",
    ),
    "a stateful loader with a sampler": (
        lambda: stateful(sampler=Order()),
        "StatefulDataLoader",
        "its Order keeps no position",
    ),
    "a stateful loader that would shuffle late": (
        lambda: stateful(sampler=RandomSampler(range(9)), batch_size=None),
        "StatefulDataLoader",
        "its RandomSampler is asked for the order again only when",
    ),
    "a stateful loader with torch's batches": (
        lambda: stateful(batch_sampler=BatchSampler(RandomSampler(range(9)), 2, True)),
        "StatefulDataLoader",
        "its RandomSampler is asked for the order again only when",
    ),
}

QUIET = [WORKERS, "ignore:'set_vital' is deprecated:UserWarning"]
pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


@pytest.mark.parametrize("source", ALONE)
def test_a_stream_that_cannot_be_resumed_exactly_is_named_once(source):
    make, kind, reason = ALONE[source]
    made = make()
    with pytest.warns(ResumeWarning) as caught:
        streams = make_streams({"fine": [1, 2], "train": made}, None)
    (message,) = (str(w.message) for w in caught if w.category is ResumeWarning)
    assert message.startswith(f"data stream 'train' ({kind}) cannot be resumed exactly: ")
    assert reason in message
    assert streams["train"].inexact in message
    assert streams["fine"].inexact is None


def shared_generator():
    one = generator()
    return loader(shuffle=True, generator=one), loader(
        sampler=RandomSampler(range(9), generator=one)
    )


def shared_data_set():
    data = Fixed(9)
    data.generator = generator()
    return loader(data), loader(data)


SHARED = {
    "a generator": (shared_generator, "Generator"),
    "a generator of the data set": (shared_data_set, "Generator"),
    "a source with a state": (lambda: 2 * [Told()], "Told"),
    "a stateful loader": (lambda: 2 * [stateful()], "StatefulDataLoader"),
    "a loader with a generator": (lambda: 2 * [loader(generator=generator())], "Generator"),
}


@pytest.mark.parametrize("what", SHARED)
def test_what_two_streams_share_is_named_for_both(what):
    make, kind = SHARED[what]
    one, other = make()
    with pytest.warns(ResumeWarning) as caught:
        make_streams({"a": one, "b": other}, None)
    messages = [str(w.message) for w in caught if w.category is ResumeWarning]
    assert [m[: m.index(" (")] for m in messages] == ["data stream 'a'", "data stream 'b'"]
    assert [
        f"shares a {kind} with '{other}'" in m for other, m in zip("ba", messages, strict=True)
    ] == 2 * [True]


def test_one_list_or_one_loader_without_a_generator_may_serve_two_streams():
    data, one = [1, 2], loader(shuffle=True)
    made = make_streams({"a": data, "b": data, "c": one, "d": one}, None)
    assert [s.inexact for s in made.values()] == 4 * [None]


def test_the_warning_points_at_the_line_that_builds_the_engine():
    problem = mlo.Problem(
        "net",
        params={"w": torch.tensor(1.0)},
        loss=lambda net, train: net["w"] * train,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    with pytest.warns(ResumeWarning, match="'train'") as caught:
        mlo.Engine([problem], {"train": Unsized()})
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed exactly")
def test_an_inexact_stream_keeps_its_batches_and_begins_a_new_epoch():
    one = stream(Unsized())
    batches = [tick(one, 1) for _ in range(5)]
    state = filed(one.state_dict())
    assert state["position"] is None
    made = stream(Unsized())
    torch.manual_seed(8)
    before = RandomState.capture().plain()
    with pytest.warns(ResumeWarning, match=r"'train' \(Unsized\) begins a new epoch.*no position"):
        made.load_state_dict(state)
    assert torch.equal(before["host"], torch.get_rng_state())
    assert (made.held, made.used, made.epochs) == ([2], 5, 1)
    assert [tick(made, 1)["parts"][0] for _ in range(4)] == [1, 2, 3, 1]
    assert len(batches) == made.used - 4


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed exactly")
def test_a_checkpoint_without_a_position_is_named_where_the_source_has_one_now():
    state = stream(Unsized()).state_dict()
    made = stream([1, 2, 3])
    with pytest.warns(ResumeWarning, match="the checkpoint has no position of it"):
        made.load_state_dict(state)
