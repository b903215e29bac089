"""Runs that skip ticks, or go back, beside loops by hand that do the same."""

from __future__ import annotations

import copy

import pytest
import torch

import mlo
from mlo.errors import NonfiniteError

NAN = float("nan")
LOW, HIGH = 0.05, 0.3
BATCHES = [torch.tensor(x) for x in (0.3, -0.2, 0.7, NAN, 0.4, -0.6, NAN, NAN, 0.1, 0.9, NAN, -0.3)]


def fit(net, top, batch):
    return 0.5 * (net["w"] - batch).square().sum() + (top["a"] * net["w"].square()).sum()


def judge(net, batch):
    return (net["w"] - 1.0 - batch).square().sum()


def engine(**guards):
    """A net by SGD with momentum, an Adam above it, both on one learning-rate schedule."""
    net = mlo.Problem(
        "net",
        params={"w": torch.tensor([1.0, -2.0])},
        loss=fit,
        optimizer=lambda p: torch.optim.SGD(p, LOW, momentum=0.9, dampening=0.9),
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5),
    )
    top = mlo.Problem(
        "top",
        params={"a": torch.tensor([0.1, 0.2])},
        loss=judge,
        optimizer=lambda p: torch.optim.Adam(p, HIGH),
        every=2,
    )
    return mlo.Engine([net, top], {"batch": BATCHES}, guards=mlo.Guards(**guards))


class Hand:
    """The same by hand, with all that moves in one attribute."""

    def __init__(self):
        w = torch.tensor([1.0, -2.0]).requires_grad_()
        a = torch.tensor([0.1, 0.2]).requires_grad_()
        low = torch.optim.SGD([w], LOW, momentum=0.9, dampening=0.9)
        self.all = w, a, low, torch.optim.Adam([a], HIGH), [0]

    def tick(self, batch, upper):
        """One tick; the hypergradient through the net's step w' = w - eta b, b = 0.9 b + 0.1 g."""
        w, a, low, adam, moves = self.all
        first = "momentum_buffer" not in low.state[w]
        rate = low.param_groups[0]["lr"] * (1.0 if first else 0.1)
        loss = fit({"w": w}, {"a": a}, batch)
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        w.grad = gradient.detach().clone()
        low.step()
        moves[0] += 1
        low.param_groups[0]["lr"] = LOW * 0.5 ** (moves[0] // 2)
        if upper:
            there = w.detach().clone().requires_grad_()
            (v,) = torch.autograd.grad(judge({"w": there}, batch), there)
            a.grad = torch.autograd.grad(gradient, a, -rate * v)[0] if gradient.requires_grad else 0
            adam.step()

    def numbers(self):
        *all_others, moves = self.all
        return numbers(*all_others, moves[0])


def numbers(w, a, low, adam, moves):
    """Everything that moves, as one list of numbers; -1 for states that are not there yet."""
    absent = -torch.ones(2)
    states = (
        low.state.get(w, {}).get("momentum_buffer", absent),
        adam.state.get(a, {}).get("exp_avg", absent),
        adam.state.get(a, {}).get("step", absent),
    )
    settings = [low.param_groups[0]["lr"], moves]
    return [*settings, *torch.cat([t.detach().reshape(-1) for t in (w, a, *states)]).tolist()]


def numbers_of(made):
    net, top = made.problems["net"], made.problems["top"]
    (w,), (a,) = net.module.parameters(), top.module.parameters()
    return numbers(w, a, net.optimizer, top.optimizer, net.scheduler.last_epoch)


def by_hand(way, every):
    """The loop: a tick with a NaN is left out, or everything goes back to the last copy."""
    hand, kept, history = Hand(), None, []
    for tick, batch in enumerate(BATCHES):
        if tick % every == 0:
            kept = copy.deepcopy(hand.all)
        if batch.isnan():
            if way == "rollback":
                hand.all = copy.deepcopy(kept)
        else:
            hand.tick(batch, upper=tick % 2 == 1)
        history.append(hand.numbers())
    return history


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("way", ["skip", "rollback"])
@pytest.mark.parametrize("every", [1, 3, 5, 100])
def test_a_run_is_that_of_a_loop_by_hand(way, every, deferred):
    made = engine(on_nonfinite=way, rollback_every=every)
    made._guard.deferred = deferred
    history = []
    result = made.run(len(BATCHES), callbacks=[After(lambda: history.append(numbers_of(made)))])
    for ours, theirs in zip(history, by_hand(way, every), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-13, abs=1e-15)
    assert [r.taken_back is not None for r in result.records] == [bool(b.isnan()) for b in BATCHES]
    assert result.health["net"].taken_back == 4
    assert result.health["net"].moves == 8


class After(mlo.Callback):
    def __init__(self, look):
        self.look = look

    def on_tick(self, record):
        self.look()


@pytest.mark.parametrize("way", ["skip", "rollback"])
def test_patience_is_for_ticks_in_a_row(way):
    assert engine(on_nonfinite=way, patience=2).run(12).ticks == 12
    made = engine(on_nonfinite=way, patience=1)
    with pytest.raises(NonfiniteError, match="tick 7: the loss of problem 'net' is nan") as caught:
        made.run(12)
    assert "2 ticks in a row were taken back" in caught.value.__notes__[0]
    with pytest.raises(NonfiniteError, match="tick 3: "):
        engine(on_nonfinite=way, patience=0).run(12)


def test_where_things_went_back_to_is_said():
    found = engine(on_nonfinite="rollback", rollback_every=5).run(12).records
    ends = [r.taken_back.rpartition("; ")[2] for r in found if r.taken_back]
    assert ends == [f"everything went back to the beginning of tick {t}" for t in (0, 5, 5, 10)]
