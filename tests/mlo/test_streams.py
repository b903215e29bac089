"""Data streams: what a tick draws, who shares it, and how epochs go by."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlo
from mlo.errors import DeclarationError, LossError, StreamError
from mlo.streams import Stream

Pair = collections.namedtuple("Pair", ["x", "y"])

without_a_position = pytest.mark.filterwarnings(
    "ignore:data stream .* cannot be resumed exactly:mlo.errors.ResumeWarning"
)


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def seen_by(log, name, *streams, own=None):
    """A loss that notes every batch it is given."""

    def loss(own, *batches):
        log.append((name, *batches))
        return own["w"].square()

    return {"loss": loss, "reads": (own or name, *streams)}


def problem(name, loss, **settings):
    return mlo.Problem(
        name, **{"params": {"w": torch.tensor(1.0)}, "optimizer": sgd, **loss, **settings}
    )


def watched(source, *, repeat=1, dry_run=False):
    """A one-problem engine over one stream, and what its loss has seen so far."""
    log = []
    net = problem("net", seen_by(log, "net", "data"), repeat=repeat)
    return mlo.Engine([net], {"data": source}, dry_run=dry_run), log


def two_levels(log, repeats, data, **settings):
    """Two problems that read one stream; each loss is evaluated once an update."""

    def low(net, decay, data):
        log.append(("net", data))
        return (net["w"] - decay["w"]).square()

    def high(decay, net, data):
        log.append(("decay", data))
        return (net["w"] * decay["w"]).square()

    lower = problem("net", {"loss": low}, repeat=repeats[0], hypergradient=mlo.Direct())
    upper = problem("decay", {"loss": high}, repeat=repeats[1])
    return mlo.Engine([lower, upper], {"data": data}, dry_run=False, **settings)


def test_one_batch_a_tick_is_shared_by_all_readers():
    log = []
    engine = two_levels(log, (1, 1), range(10))
    for _ in range(3):
        engine.step()
    assert log == [(name, tick) for tick in range(3) for name in ("net", "decay")]


@pytest.mark.parametrize(
    ("repeats", "first", "second"),
    [
        ((3, 1), [("net", 0), ("net", 1), ("net", 2), ("decay", 2)], 3),
        ((1, 2), [("net", 1), ("decay", 0), ("decay", 1)], 2),
        ((3, 2), [("net", 0), ("net", 1), ("net", 2), ("decay", 1), ("decay", 2)], 3),
    ],
)
def test_repeats_draw_anew_and_the_last_draw_is_the_batch_of_the_tick(repeats, first, second):
    log = []
    engine = two_levels(log, repeats, range(100))
    engine.step()
    assert log == first
    log.clear()
    engine.step()
    assert log == [(name, batch + second) for name, batch in first]


def test_a_stream_is_drawn_only_when_a_reader_is_due():
    log = []
    net = problem("net", seen_by(log, "net", "other"), every=1)
    slow = problem(
        "other",
        {
            "loss": lambda other, net, rare: log.append(("slow", rare)) or other["w"] * net["w"],
            "every": 3,
        },
    )
    net = problem("net", seen_by(log, "net", "often"))
    engine = mlo.Engine([net, slow], {"often": range(99), "rare": range(99)}, dry_run=False)
    for _ in range(7):
        engine.step()
    assert [batch for name, batch in log if name == "slow"] == [0, 1]
    assert [batch for name, batch in log if name == "net"] == [*range(7)]


SOURCES = {
    "a list": [0, 1, 2],
    "a tuple": (0, 1, 2),
    "a range": range(3),
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_exhausted_source_begins_again(source):
    engine, log = watched(SOURCES[source])
    for _ in range(8):
        engine.step()
    assert [batch for _, batch in log] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_loader_gives_every_example_once_an_epoch_in_a_new_order():
    loader = DataLoader(TensorDataset(torch.arange(12)), batch_size=5, shuffle=True)
    engine, log = watched(loader)
    engine.run(epochs=4)
    assert len(log) == 12
    epochs = [torch.cat([batch[0] for _, batch in log[i : i + 3]]) for i in range(0, 12, 3)]
    assert all(sorted(epoch.tolist()) == [*range(12)] for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


BATCHES = {
    "a tensor": torch.ones(3),
    "a tuple": (torch.ones(3), torch.zeros(2)),
    "a dict": {"x": torch.ones(3), "y": torch.zeros(2)},
    "a named tuple": Pair(torch.ones(3), torch.zeros(2)),
    "nested": {"views": [torch.ones(1), (torch.zeros(1), {"deep": torch.ones(2)})], "tag": "a"},
    "a number": 3.5,
    "a string": "digits",
    "nothing": None,
}


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch_arrives_as_it_is(batch):
    engine, log = watched([BATCHES[batch]])
    engine.step()
    assert log[0][1] is BATCHES[batch]


@pytest.mark.parametrize("batch", BATCHES)
def test_an_engine_with_a_device_moves_every_tensor_of_a_batch(batch):
    given = BATCHES[batch]
    found = Stream("data", [given], torch.device("meta")).present()
    before, tree = torch.utils._pytree.tree_flatten(given)
    after, same = torch.utils._pytree.tree_flatten(found)
    assert tree == same
    for a, b in zip(before, after, strict=True):
        if isinstance(a, torch.Tensor):
            assert (b.device.type, b.shape) == ("meta", a.shape)
        else:
            assert a == b


def gradient_of(engine):
    return float(engine.hypergradient("net")["w"])


def weighted(source, **settings):
    net = problem("net", {"loss": lambda net, data: net["w"] * data})
    return mlo.Engine([net], {"data": source}, **settings)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_batch_asked_for_before_any_tick_is_used_by_the_next(dry_run):
    engine = weighted([1.0, 2.0, 3.0], dry_run=dry_run)
    assert [gradient_of(engine), gradient_of(engine)] == [1.0, 1.0]
    assert [float(engine.step().moves[0].gradient_norm) for _ in range(2)] == [1.0, 2.0]
    assert gradient_of(engine) == 2.0, "the present batch is that of the last tick"
    assert float(engine.step().moves[0].gradient_norm) == 3.0


def test_a_batch_asked_for_before_a_tick_of_several_draws_is_the_first_of_them():
    engine, log = watched(range(10), repeat=3, dry_run=True)
    assert log == [("net", 0)]
    engine.step()
    assert [batch for _, batch in log[1:]] == [0, 1, 2]


@without_a_position
def test_an_iterator_serves_until_it_ends_and_is_then_named():
    engine, log = watched(iter([5, 6]))
    engine.step()
    engine.step()
    with pytest.raises(StreamError, match=r"'data'.*iterator.*DataLoader"):
        engine.step()
    assert [batch for _, batch in log] == [5, 6]
    assert engine.tick == 2


@without_a_position
def test_a_source_that_is_empty_the_second_time_is_named():
    class Once:
        left = 1

        def __iter__(self):
            self.left -= 1
            return iter([7] if self.left == 0 else [])

    engine, _ = watched(Once())
    engine.step()
    with pytest.raises(StreamError, match="'data'"):
        engine.step()


@without_a_position
def test_the_error_of_a_source_is_not_hidden():
    def broken():
        yield 1
        raise OSError("no such file")

    engine, _ = watched(broken())
    engine.step()
    with pytest.raises(OSError, match="no such file"):
        engine.step()


@pytest.mark.parametrize("every", [1, 2])
def test_tick_is_the_number_of_the_present_tick_in_every_loss(every):
    log = []

    def low(net, decay, tick):
        log.append(("net", tick))
        return (net["w"] - decay["w"]).square()

    def high(net, tick):
        log.append(("decay", tick))
        return net["w"].square()

    lower, upper = problem("net", {"loss": low}), problem("decay", {"loss": high, "every": every})
    engine = mlo.Engine([lower, upper], dry_run=False)
    for _ in range(4):
        engine.step()
    assert all(type(tick) is int for _, tick in log)
    assert [tick for name, tick in log if name == "decay"] == [*range(every - 1, 4, every)]
    # Evaluated once for each move; a replay is at the same tick.
    assert [*dict.fromkeys(tick for name, tick in log if name == "net")] == [*range(4)]


EPOCHS = {
    # batches an epoch, epochs, every, repeat of the reader -> ticks
    "one": (7, 1, 1, 1, 7),
    "several": (7, 3, 1, 1, 21),
    "every": (4, 2, 3, 1, 24),
    "repeat that divides": (6, 2, 1, 3, 4),
    "repeat that does not": (5, 2, 1, 3, 4),
    "one batch": (1, 5, 1, 1, 5),
    "every and repeat": (5, 1, 2, 2, 6),
}


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("case", EPOCHS)
def test_epochs_count_ticks_exactly(case, looked_at):
    length, epochs, every, repeat, ticks = EPOCHS[case]
    log = []
    net = problem("net", seen_by(log, "net", "data"), every=every, repeat=repeat)
    engine = mlo.Engine([net], {"data": [*range(length)]}, dry_run=looked_at)
    log.clear()
    result = engine.run(epochs=epochs)
    assert (result.ticks, engine.tick) == (ticks, ticks)
    assert len(log) >= epochs * length > len(log) - repeat


def test_epochs_of_a_second_run_begin_where_the_first_ended():
    engine, log = watched([*range(4)])
    assert engine.run(epochs=1).ticks == 4
    engine.step()
    # The epoch that has begun is completed, and counts.
    assert engine.run(epochs=2).ticks == 7
    assert [batch for _, batch in log] == 3 * [0, 1, 2, 3]


def test_epochs_count_the_batches_of_every_repeat():
    engine, log = watched([*range(5)], repeat=3)
    assert engine.run(epochs=2).ticks == 4
    assert len(log) == 12
    assert engine.run(epochs=2).ticks == 3, "12 of the 20 batches of four epochs are used"


def test_epochs_are_those_of_the_first_stream_of_the_lowest_problem_with_data():
    lower = problem("net", {"loss": lambda net, decay: (net["w"] - decay["w"]).square()})
    upper = problem(
        "decay",
        {"loss": lambda net, short, long: (net["w"] * short * long).square(), "every": 2},
    )
    engine = mlo.Engine([lower, upper], {"long": [1.0] * 9, "short": [1.0] * 3})
    assert engine.run(epochs=2).ticks == 12


@without_a_position
def test_epochs_need_a_length():
    engine, _ = watched(iter(range(9)))
    with pytest.raises(DeclarationError, match=r"epochs=.*length.*ticks="):
        engine.run(epochs=1)


def lr_steps(scheduler, ticks, source, **settings):
    """Learning rates in the records of a run with the scheduler; batches are (loss, error)."""
    net = problem(
        "net",
        {"loss": lambda net, data: (0.0 * net["w"] + data[0], {"error": data[1]})},
        scheduler=scheduler,
        **settings,
    )
    engine = mlo.Engine([net], {"data": source})
    return [round(engine.step().moves[0].learning_rate, 12) for _ in range(ticks)]


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


class Unsized:
    def __iter__(self):
        return iter([(1.0, 1.0)] * 3)


@without_a_position
def test_a_scheduler_steps_once_a_move():
    assert lr_steps(halving, 4, Unsized()) == [0.1, 0.05, 0.025, 0.0125]


# Without a length the end of an epoch shows only when the next batch is asked for.
@without_a_position
@pytest.mark.parametrize(("source", "late"), [([*Unsized()], 0), (Unsized(), 1)])
def test_a_scheduler_steps_once_an_epoch_of_a_stream(source, late):
    rates = lr_steps(halving, 8, source, scheduler_every="data")
    assert rates[late:] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025][: 8 - late]


@pytest.mark.parametrize("metric", ["loss", "error"])
def test_a_scheduler_that_wants_a_metric_is_given_it(metric):
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    rising, falling = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    worse = zip(*((rising, falling) if metric == "loss" else (falling, rising)), strict=True)
    assert lr_steps(plateau, 4, [*worse], scheduler_metric=metric) == [0.1, 0.1, 0.05, 0.025]
    better = zip(*((falling, rising) if metric == "loss" else (rising, falling)), strict=True)
    assert lr_steps(plateau, 4, [*better], scheduler_metric=metric) == [0.1] * 4


@without_a_position
def test_a_metric_that_no_loss_returns_is_named():
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    with pytest.raises(LossError, match=r"'net'.*scheduler_metric='eror'.*did you mean 'error'"):
        lr_steps(plateau, 1, Unsized(), scheduler_metric="eror")


def test_a_scheduler_built_over_the_users_optimizer_is_kept():
    net = nn.Linear(1, 1)
    optimizer = sgd(net.parameters())
    scheduler = halving(optimizer)
    made = mlo.Problem(
        "net",
        module=net,
        loss=lambda net: net.weight.sum(),
        optimizer=optimizer,
        scheduler=scheduler,
    )
    assert made.scheduler is scheduler
    assert made.optimizer is optimizer
    mlo.Engine([made]).run(ticks=2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
