"""Batches from tensors that stay where they are: what is in them, and states between them."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlo.errors import CheckpointError, ConfigurationError, DataError, StreamError
from mlo.plain import check_plain, copied
from problems.datasets.resident import ResidentStream

from .small_streams import AUGMENTATION, examples, same, seeded, stream


@settings(deadline=None, max_examples=40, derandomize=True, database=None)
@given(st.integers(1, 20), st.integers(1, 22), st.booleans(), st.integers(0, 99))
def test_an_epoch_gives_every_example_once_with_its_label_and_position(count, size, drop, seed):
    x, y = examples(count)
    if drop and size > count:
        size = count
    made = stream(count, batch_size=size, seed=seed, transform=None, drop_last=drop)
    for _ in range(2):
        batches = [*made]
        sizes = [len(labels) for _, labels, _ in batches]
        whole, rest = divmod(count, size)
        assert sizes == [size] * whole + ([rest] if rest and not drop else [])
        assert len(made) == len(sizes)
        for inputs, labels, index in batches:
            assert torch.equal(inputs, x[index])
            assert torch.equal(labels, y[index])
        given_once = torch.cat([index for *_, index in batches])
        assert len(given_once.unique()) == sum(sizes)


def test_the_order_is_that_of_the_generator_and_new_in_every_epoch():
    made, draw = stream(transform=None), seeded(5)
    for _ in range(3):
        order = torch.randperm(13, generator=draw)
        assert torch.equal(torch.cat([index for *_, index in made]), order[:12])
    first, second = ([index.tolist() for *_, index in stream(seed=s)] for s in (5, 6))
    assert first != second


def test_the_augmentation_is_applied_to_the_inputs_of_each_batch_on_the_generator():
    x, y = examples()
    draw = seeded(5)
    order = torch.randperm(13, generator=draw)
    for number, (inputs, labels, index) in enumerate(stream()):
        rows = order[4 * number : 4 * number + 4]
        assert torch.equal(index, rows)
        assert torch.equal(inputs, AUGMENTATION(x[rows], draw))
        assert torch.equal(labels, y[rows])


def test_neither_the_data_nor_the_global_generator_change():
    data, random = examples(), torch.get_rng_state()
    before = copied([*data])
    for batch in stream(data=data, transform=None):
        for part in batch:
            part.zero_()
    assert same([*data], before)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_batch_holds_its_own_examples_alone():
    batch = next(iter(stream(transform=None)))
    assert [part.untyped_storage().nbytes() for part in batch] == [4 * 40, 4 * 8, 4 * 8]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("drawn", range(9))
def test_a_state_goes_on_after_the_batches_given_before_it(drawn, drop_last):
    made, twin = (stream(drop_last=drop_last, seed=seed) for seed in (5, 77))
    iterator = iter(made)
    for _ in range(drawn):
        try:
            next(iterator)
        except StopIteration:  # as an engine does it: the next epoch begins with the next batch
            iterator = iter(made)
            next(iterator)
    state = copied(made.state_dict())
    check_plain(state, "state")
    next(iter(twin))  # whatever it was before
    twin.load_state_dict(state)
    assert same(twin.state_dict(), state)
    rest = [[*batch] for batch in twin]
    assert same(rest, [[*batch] for batch in iterator])
    assert 0 <= len(rest) <= len(made)
    assert same([[*batch] for batch in twin], [[*batch] for batch in made])
    assert same(twin.state_dict(), made.state_dict())


def test_a_state_between_two_epochs_begins_the_next_one():
    made, twin = stream(), stream(seed=77)
    for _ in made:
        pass
    twin.load_state_dict(copied(made.state_dict()))
    rest = [[*batch] for batch in twin]
    assert len(rest) == 3
    assert same(rest, [[*batch] for batch in made])


def test_a_state_is_small_whatever_the_size_of_the_set():
    made = stream(5000)
    next(iter(made))
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    assert len(file.getvalue()) < 20_000  # of which the two states of the generator are 10 112


def test_an_iterator_that_gives_nothing_changes_nothing():
    made, twin = stream(), stream()
    next(iter(made))
    state = copied(made.state_dict())
    twin.load_state_dict(state)
    iterator = iter(twin)
    assert same(twin.state_dict(), state)
    del iterator
    assert same(twin.state_dict(), state)


def test_an_epoch_that_is_left_is_dropped_and_a_new_one_begins():
    made = stream(transform=None)
    old = iter(made)
    next(old)
    draw = made.generator.clone_state()
    new = iter(made)
    assert made.state_dict()["given"] == 0
    with pytest.raises(StreamError, match="newer iterator"):
        next(old)
    assert torch.equal(
        torch.cat([index for *_, index in new]), torch.randperm(13, generator=draw)[:12]
    )


def test_an_epoch_that_was_loaded_is_gone_on_with_once():
    made, twin = stream(transform=None), stream(transform=None)
    next(iter(made))
    twin.load_state_dict(copied(made.state_dict()))
    next(iter(twin))
    assert twin.state_dict()["given"] == 2
    draw = twin.generator.clone_state()
    assert torch.equal(
        torch.cat([index for *_, index in twin]), torch.randperm(13, generator=draw)[:12]
    )


def test_a_loaded_state_ends_the_iterators_before_it():
    made = stream()
    started = iter(made)
    next(started)
    state = copied(made.state_dict())
    made.load_state_dict(state)
    with pytest.raises(StreamError, match="a state was loaded"):
        next(started)
    waiting = iter(made)
    made.load_state_dict(state)
    with pytest.raises(StreamError, match="a state was loaded"):
        next(waiting)


CHANGES = {
    "another order of the labels": lambda x, y: (x, y.flip(0)),
    "other images": lambda x, y: (255 - x, y),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_of_other_data_is_refused_and_nothing_is_changed(change):
    made, other = stream(), stream(data=CHANGES[change](*examples()), seed=6)
    next(iter(made))
    next(iter(other))
    before = copied(other.state_dict())
    with pytest.raises(CheckpointError, match="not what they were"):
        other.load_state_dict(copied(made.state_dict()))
    assert same(other.state_dict(), before)


@pytest.mark.parametrize("built", [{"count": 14}, {"batch_size": 3}, {"drop_last": False}])
def test_a_state_of_other_batches_is_refused(built):
    with pytest.raises(CheckpointError, match="Build the stream as it was"):
        stream(**built).load_state_dict(stream().state_dict())


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: stream(batch_size=14), ConfigurationError, "1 to 13.*found 14"),
        (lambda: stream(batch_size=0), ConfigurationError, "1 to 13.*found 0"),
        (lambda: stream(data=(torch.ones(4, 1), torch.ones(5))), DataError, "4 inputs and 5"),
        (lambda: stream(data=examples(0)), DataError, "at least one example"),
        (
            lambda: stream(data=(torch.ones(4, 1), torch.ones(4, device="meta"))),
            DataError,
            "one device, found cpu and meta",
        ),
        (
            lambda: ResidentStream(*examples(), batch_size=2, generator=torch.default_generator),
            ConfigurationError,
            "generator.*the global one",
        ),
    ],
)
def test_what_gives_no_batches_is_refused(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


def test_nothing_is_read_back_from_the_device_for_a_batch():
    x, y = (part.to("meta") for part in examples())
    draw = stream(data=(x, y))
    for inputs, labels, index in draw:
        assert [part.device.type for part in (inputs, labels, index)] == ["meta"] * 3
    on_host = stream()
    for _ in on_host:
        pass
    assert torch.equal(draw.generator.get_state(), on_host.generator.get_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_an_accelerator_gives_the_batches_of_the_host():
    on_device = stream(data=tuple(part.cuda() for part in examples()))
    for found, expected in zip(on_device, stream(), strict=True):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-6)
