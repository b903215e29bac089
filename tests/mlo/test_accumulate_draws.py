"""Micro-batches: which batches they are, whose epochs they count in, and what lives at once."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def batches(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(4, 3, generator=draw), torch.randint(0, 2, (4,), generator=draw))
        for _ in range(n)
    ]


def counted(log, name, *streams, **settings):
    def loss(own, *given):
        log.append((name, *given))
        return own["w"].square()

    return mlo.Problem(
        name,
        params={"w": torch.tensor(1.0)},
        loss=loss,
        reads=(name, *streams),
        optimizer=sgd,
        **settings,
    )


@pytest.mark.parametrize("looked", [False, True])
def test_batches_come_in_order_and_each_is_used_once(looked):
    log = []
    net = counted(log, "net", "data", accumulate=3, repeat=2)
    engine = mlo.Engine([net], {"data": range(1000)}, dry_run=looked)
    for tick in range(4):
        if looked:
            engine.hypergradient("net")
            # Before the first tick, those that its first update will use.
            end = 6 * tick or 3
            assert log[-3:] == [("net", n) for n in range(end - 3, end)]
        log.clear()
        engine.step()
        assert log == [("net", n) for n in range(6 * tick, 6 * tick + 6)]


@pytest.mark.parametrize("looked", [False, True])
def test_readers_with_other_counts_use_the_last_batches_of_the_tick(looked):
    log = []

    def high(b, a, shared, own):
        log.append(("b", shared, own))
        return b["w"] * a["w"]

    a = counted(log, "a", "shared", accumulate=2, repeat=2, hypergradient=mlo.Direct())
    params = {"w": torch.tensor(1.0)}
    b = mlo.Problem("b", params=params, loss=high, optimizer=sgd, accumulate=3, every=2)
    engine = mlo.Engine([a, b], {"shared": range(1000), "own": range(1000)}, dry_run=looked)
    if looked:
        engine.hypergradient("b")
    used = 0
    for tick in range(4):
        log.clear()
        engine.step()
        want = [("a", n) for n in range(used, used + 4)]
        used += 4
        if tick % 2:
            first = 3 * (tick // 2)
            want += [("b", used - 3 + i, first + i) for i in range(3)]
        assert log == want


def test_what_a_large_first_look_drew_is_used_later_in_order():
    """The slow reader needs five batches, but the fast one moves first, by one a tick."""
    log = []
    fast = counted(log, "fast", "data")

    def loss(slow, fast, data):
        log.append(("slow", data))
        return slow["w"] * fast["w"]

    params = {"w": torch.tensor(1.0)}
    slow = mlo.Problem("slow", params=params, loss=loss, optimizer=sgd, accumulate=5, warmup=3)
    engine = mlo.Engine([fast, slow], {"data": range(1000)})
    engine.hypergradient("slow")
    assert log[-5:] == [("slow", n) for n in range(5)]
    log.clear()
    for _ in range(3):
        engine.step()
    assert log == [("fast", 0), ("fast", 1), ("fast", 2)]
    log.clear()
    engine.step()
    assert log == [("fast", 7), *(("slow", n) for n in range(3, 8))]


def test_epochs_count_micro_batches():
    log = []
    net = counted(
        log,
        "net",
        "data",
        accumulate=3,
        repeat=2,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        scheduler_every="data",
    )
    engine = mlo.Engine([net], {"data": [*range(12)]}, dry_run=False)
    for tick in range(5):
        engine.step()
        rate = 0.1 * 0.5 ** ((tick + 1) // 2)
        assert net.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert engine.run(epochs=3).ticks == 5  # up to the end of the fifth epoch


class Alive:
    """How many tensors that were shown to it are alive, at most at once."""

    def __init__(self):
        self.now, self.peak = 0, 0

    def show(self, tensor):
        self.now += 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self.gone)

    def gone(self):
        self.now -= 1


class Watched(torch.autograd.Function):
    """The identity; it saves an activation that nothing else holds, and shows it."""

    @staticmethod
    def forward(ctx, x, alive):
        activation = x.detach().clone()
        alive.show(activation)
        ctx.activation = activation
        return x.clone()

    @staticmethod
    def backward(ctx, v):
        return v * ctx.activation.isfinite(), None


@pytest.mark.parametrize("name", ["none", "OneStep", "central", "forward", "upper"])
def test_one_graph_at_a_time_is_alive(name):
    peaks = []
    methods = {
        "central": mlo.FiniteDifference(),
        "forward": mlo.FiniteDifference(scheme="forward"),
    }
    for n in (2, 8):
        alive = Alive()

        def low(net, upper, train, alive=alive):
            loss = F.cross_entropy(net(train[0]), train[1])
            return Watched.apply(upper["w"].exp() * loss, alive)

        def high(net, valid, alive=alive):
            return Watched.apply(F.cross_entropy(net(valid[0]), valid[1]), alive)

        torch.manual_seed(3)
        net = nn.Linear(3, 2)
        lower = mlo.Problem(
            "net",
            module=net,
            loss=low,
            optimizer=sgd(net.parameters()),
            accumulate=1 if name == "upper" else n,
            hypergradient=methods.get(name),
        )
        start = {"w": torch.zeros(())}
        top = mlo.Problem(
            "upper", params=start, loss=high, optimizer=sgd, accumulate=n if name == "upper" else 1
        )
        engine = mlo.Engine([lower, top], {"train": batches(8, 1), "valid": batches(8, 2)})
        alive.peak = alive.now
        engine.hypergradient("net") if name == "none" else engine.hypergradient("upper")
        peaks.append(alive.peak)
    assert peaks[0] == peaks[1] <= 3
