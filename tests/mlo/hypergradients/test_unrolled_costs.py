"""What recorded updates cost: gradient evaluations, memory, and that nothing else changes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import mlo
from mlo.condition import Condition
from mlo.moves import Move

from .unrolling import fit, judge, values

WIDTH, BATCH, LAYERS = 4, 1500, 2
SIZE = 8 * LAYERS * (WIDTH * WIDTH + WIDTH)
"""Bytes of the parameters; activations are more than a hundred times as many."""


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations have made and that still live, and the most so far."""

    def __init__(self):
        super().__init__()
        self.alive = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for t in tree_leaves(found):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.alive:
                storage = t.untyped_storage()
                self.alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata).atexit = False
        self.peak = max(self.peak, self.now)
        return found

    def _forget(self, key):
        self.now -= self.alive.pop(key)


def deep(method, repeat, accumulate=1):
    """A net whose activations are many, and its parameters few."""
    torch.manual_seed(0)
    layers = [m for _ in range(LAYERS) for m in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    net, x = nn.Sequential(*layers), torch.randn(BATCH, WIDTH)
    low = mlo.Problem(
        "low",
        module=net,
        loss=lambda low, top, train: (low(train) * top["a"].exp() - x.cos()).square().mean(),
        optimizer=torch.optim.Adam(net.parameters(), 1e-3),
        hypergradient=method,
        repeat=repeat,
        accumulate=accumulate,
    )
    top = mlo.Problem(
        "top",
        params={"a": torch.zeros(WIDTH)},
        loss=lambda low: low(x[:5]).square().mean(),
        optimizer=lambda p: torch.optim.SGD(p, 0.1),
    )
    return mlo.Engine([low, top], {"train": [x]})


def peak(method, repeat, **settings):
    """Of a tick: its moves, and the upper gradient through all of them."""
    engine = deep(method, repeat, **settings)
    engine.step()
    with LiveBytes() as live:
        engine.step()
    return live.peak


def test_memory_is_flat_in_the_number_of_updates_beyond_what_is_stored():
    """Stored before every update: parameters, and two averages of Adam."""
    peaks = {k: peak(mlo.Unrolled(), k) - 3 * SIZE * k for k in (2, 8, 64)}
    assert min(peaks.values()) > 20 * SIZE
    assert max(peaks.values()) < 1.2 * peaks[2]


def test_micro_batches_have_their_graphs_one_after_another():
    assert peak(mlo.Unrolled(), 2, accumulate=6) < 1.2 * peak(mlo.Unrolled(), 2)


def test_kept_graphs_take_memory_for_every_update():
    peaks = {k: peak(mlo.Unrolled(recompute=False), k) - 3 * SIZE * k for k in (2, 8)}
    assert peaks[8] > 2.5 * peaks[2]
    assert peaks[8] > 2.5 * peak(mlo.Unrolled(), 8)


def test_tangents_take_no_memory_but_for_what_trial_moves_would_need():
    peaks = {k: peak(mlo.ForwardMode(), k) - 3 * SIZE * k for k in (2, 16)}
    assert peaks[16] < 1.05 * peaks[2]


def counted(method, **settings):
    """A program, and the times at which its lower loss was evaluated."""
    calls = []

    def counting(low, top):
        calls.append(1)
        return fit(low, top, TRAIN)

    at_low, at_top = values()
    low = mlo.Problem(
        "low",
        params=at_low,
        loss=counting,
        optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        hypergradient=method,
        **settings,
    )
    top = mlo.Problem(
        "top",
        params=at_top,
        loss=lambda low: judge(low, TRAIN),
        optimizer=lambda p: torch.optim.SGD(p, 0.1),
    )
    return mlo.Engine([low, top], guards=mlo.Guards(probe=False)), calls


DRAW = torch.Generator().manual_seed(8)
TRAIN = tuple(torch.randn(s, generator=DRAW, dtype=torch.float64) for s in ((5, 3), (5,)))


def products(monkeypatch, name):
    """The times at which a product of conditions was taken."""
    calls, real = [], getattr(Condition, name)

    def counting(self, *given):
        calls.append(1)
        return real(self, *given)

    monkeypatch.setattr(Condition, name, counting)
    return calls


@pytest.mark.parametrize(
    ("method", "again"), [(mlo.Unrolled(), 4), (mlo.Unrolled(recompute=False), 0)]
)
def test_an_update_costs_one_product_and_one_evaluation_unless_its_graph_is_kept(
    method, again, monkeypatch
):
    engine, calls = counted(method, repeat=4)
    engine.step()
    calls.clear()
    taken = products(monkeypatch, "products")
    engine.step()
    assert len(calls) == 4 + again
    assert len(taken) == 4
    calls.clear()
    found = engine.total_gradient("top")[1][0].info.products
    assert len(calls) == 4
    assert found == 4


def test_tangents_cost_a_column_for_every_upper_entry_and_answers_nothing(monkeypatch):
    engine, calls = counted(mlo.ForwardMode(), repeat=4)
    calls.clear()
    columns = products(monkeypatch, "jvp")
    record = engine.step()
    assert len(calls) == 4 + 4
    assert len(columns) == 4 * 7
    (response,) = next(m for m in record.moves if m.problem == "top").responses
    assert response.info.products == 4 * 7
    calls.clear()
    engine.total_gradient("top")
    assert not calls
    assert len(columns) == 4 * 7


@pytest.mark.parametrize("method", [mlo.Unrolled(7), mlo.Unrolled(7, False), mlo.ForwardMode()])
@pytest.mark.parametrize("lookahead", [False, True])
def test_long_runs_keep_no_more_than_they_may_differentiate(method, lookahead):
    low, top = values()
    problems = [
        mlo.Problem(
            "low",
            params=low,
            loss=lambda low, top: fit(low, top, TRAIN),
            optimizer=lambda p: torch.optim.Adam(p, 0.01),
            hypergradient=method,
            repeat=2,
        ),
        mlo.Problem(
            "top",
            params=top,
            loss=lambda low: judge(low, TRAIN),
            optimizer=lambda p: torch.optim.SGD(p, 0.01),
        ),
    ]

    def living():
        gc.collect()
        found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor | Move)]
        return len(found), len({id(o) for o in found if type(o) is Move and "low" not in o.below})

    _, others = living()  # of what was tested before
    engine = mlo.Engine(problems, lookahead=lookahead)
    for _ in range(5):
        engine.step()
    tensors, moves = living()
    for _ in range(10):
        engine.step()
    assert living() == (tensors, moves)
    assert len(engine._mover.moves["low"].past) == moves - others - 1 == (method.reach or 2) - 1


def state_of(engine):
    """Everything that a look might disturb, as copies."""
    moves, states = engine._mover.moves, engine._mover.states
    problems = engine.problems.values()
    return tree_map(
        lambda t: t.clone() if torch.is_tensor(t) else t,
        (
            [p.module.state_dict() for p in problems],
            [p.optimizer.state_dict() for p in problems],
            states,
            {n: (m.before, [q.before for q in m.past], m.learning_rate) for n, m in moves.items()},
            torch.get_rng_state(),
        ),
    )


@pytest.mark.parametrize("method", [mlo.Unrolled(5), mlo.Unrolled(5, False), mlo.ForwardMode()])
@pytest.mark.parametrize("lookahead", [False, True])
def test_nothing_moves_while_a_hypergradient_is_looked_at(method, lookahead):
    from .test_unrolled_nets import OPTIMIZERS, program

    engine = program(OPTIMIZERS["amsgrad"], method, upper=0.1)
    engine.step()
    engine.step()
    before, moves = state_of(engine), dict(engine._mover.moves)
    first = engine.hypergradient("top")
    again = engine.hypergradient("top")
    assert all(torch.equal(first[k], again[k]) for k in first)
    after = state_of(engine)
    for one, other in zip(tree_leaves(before), tree_leaves(after), strict=True):
        assert torch.equal(one, other) if torch.is_tensor(one) else one == other
    assert engine._mover.moves == moves
