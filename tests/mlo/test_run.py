"""Runs: callbacks, evaluations, and how they end."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import mlo
from mlo.callbacks import EarlyStopping, KeepBest
from mlo.errors import ConfigurationError, DeclarationError, EvaluationError

from .classified import batch, engine, net_of


class Log:
    """Every call, with what it was given."""

    def __init__(self, calls, name="", stop_at=None):
        self.calls, self.name, self.stop_at = calls, name, stop_at

    def __getattr__(self, hook):
        if not hook.startswith("on_") or hook == "on_checkpoint":
            raise AttributeError(hook)

        def told(record):
            self.calls.append((self.name, hook, record))
            tick = getattr(record, "tick", None)
            return mlo.Stop(f"{self.name} says so") if (hook, tick) == self.stop_at else None

        return told


def count(net):
    return sum(p.sum().item() for p in net.parameters())


def test_callbacks_hear_of_everything_in_their_order():
    calls = []
    result = engine().run(
        ticks=2, callbacks=[Log(calls, "a"), Log(calls, "b")], evaluate={"sum": (count, 2)}
    )
    hooks = ["on_start", *2 * ["on_move", "on_move", "on_tick"], "on_evaluation", "on_end"]
    assert [(n, h) for n, h, _ in calls] == [(n, hook) for hook in hooks for n in "ab"]
    start, end = calls[0][2], calls[-1][2]
    assert (start.ticks, start.problems) == (2, ("net", "decay"))
    assert "level 1  decay" in start.graph
    assert [p["name"] for p in start.drawing["problems"]] == ["net", "decay"]
    assert {"read": "net", "by": "decay", "response": True} in start.drawing["edges"]
    assert end is result


def test_a_callback_needs_only_the_methods_that_it_has():
    class Moves:
        seen = 0

        def on_move(self, record):
            self.seen += 1

    moves = Moves()
    engine().run(ticks=3, callbacks=[moves, mlo.Callback()])
    assert moves.seen == 6
    with pytest.raises(DeclarationError, match=r"callbacks=.*did you mean 'on_tick'"):
        engine().run(ticks=1, callbacks=[type("Typo", (), {"on_tik": print})()])


@pytest.mark.parametrize("stop_at", [("on_tick", 1), ("on_evaluation", 1)])
def test_a_stop_ends_the_run_after_the_tick_and_all_hear_of_it(stop_at):
    calls = []
    log = [Log(calls, "a"), Log(calls, "b", stop_at), Log(calls, "c", stop_at)]
    made = engine()
    result = made.run(ticks=9, callbacks=log, evaluate={"sum": (count, 1)})
    assert (result.status, result.reason) == (mlo.Status.STOPPED, "b says so")
    assert (result.ticks, made.tick, len(result.records), len(result.evaluations)) == (2, 2, 2, 2)
    assert [n for n, hook, record in calls if hook == "on_evaluation" and record.tick == 1] == [
        *"abc"
    ]
    assert [n for n, hook, _ in calls if hook == "on_end"] == [*"abc"]
    assert made.run(ticks=1).status is mlo.Status.COMPLETED


def failing_at(tick, where):
    def fail(record):
        if record.tick == tick:
            raise ZeroDivisionError("on purpose")

    return type("Failing", (), {where: staticmethod(fail)})()


@pytest.mark.parametrize(("where", "ticks"), [("on_move", 2), ("on_tick", 3), ("on_evaluation", 3)])
def test_the_end_is_told_however_a_run_ends(where, ticks):
    calls, made = [], engine()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        made.run(
            ticks=9,
            callbacks=[Log(calls, "a"), failing_at(2, where), Log(calls, "b")],
            evaluate={"sum": (count, 1)},
        )
    ends = [(name, record) for name, hook, record in calls if hook == "on_end"]
    assert [name for name, _ in ends] == ["a", "b"]
    result = ends[0][1]
    assert result.status is mlo.Status.FAILED
    assert result.reason == "ZeroDivisionError: on purpose"
    assert (result.ticks, made.tick, len(result.records)) == (ticks, ticks, ticks)


def test_those_who_were_told_of_the_start_are_told_of_the_end():
    calls = []
    broken = type("Broken", (), {"on_start": lambda self, record: 1 / 0})()
    with pytest.raises(ZeroDivisionError):
        engine().run(ticks=1, callbacks=[Log(calls, "a"), broken, Log(calls, "b")])
    assert [(n, h) for n, h, _ in calls] == [("a", "on_start"), ("a", "on_end")]


def test_one_callback_that_fails_at_the_end_does_not_keep_it_from_the_others():
    calls = []
    broken = type("Broken", (), {"on_end": lambda self, result: 1 / 0})()
    with pytest.raises(ZeroDivisionError):
        engine().run(ticks=1, callbacks=[broken, Log(calls, "b")])
    assert [hook for _, hook, _ in calls][-1] == "on_end"


@pytest.mark.parametrize(("every", "kept"), [(1, [*range(7)]), (3, [0, 3, 6]), (10, [0])])
def test_record_every_keeps_every_nth_record(every, kept):
    result = engine().run(ticks=7, record_every=every)
    assert [record.tick for record in result.records] == kept
    assert (result.ticks, result.status) == (7, mlo.Status.COMPLETED)
    assert result.plain()["status"] == "completed"


def test_evaluations_come_every_nth_tick_and_after_the_last():
    made = engine()
    looks = {"often": (count, 2), "rare": (count, 5), "never": (count, 100)}
    result = made.run(ticks=7, evaluate=looks)
    ticks = {n: [e.tick for e in result.evaluations if e.name == n] for n in looks}
    assert ticks == {"often": [1, 3, 5, 6], "rare": [4, 6], "never": [6]}
    assert result.last("often") == {"often": count(made.problems["net"].module)}
    assert result.last("unknown") == {}
    again = made.run(ticks=3, evaluate={"often": (count, 4)})
    assert [e.tick for e in again.evaluations] == [7, 9], "n counts the ticks of all runs"


def test_an_evaluation_sees_modules_in_evaluation_mode_and_leaves_no_trace():
    net = net_of(dropout=0.5)
    net[2].eval()
    seen = {}

    def look(net, decay, scale=2.0):
        modes = [part.training for part in net.modules()]
        seen.update(modes=modes, grad=torch.is_grad_enabled(), decay=type(decay))
        x = torch.randn(5, 3)
        np.random.rand(3), random.random()
        before = net[1].running_mean.clone()
        seen["out"] = net(x).requires_grad
        assert torch.equal(net[1].running_mean, before)
        return {"mean": net(x).mean() * scale}

    runs = []
    for evaluate in ({}, {"look": (look, 1)}):
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        twin = net_of(dropout=0.5)
        twin.load_state_dict(net.state_dict())
        twin[2].eval()
        result = engine(twin, data={"train": [batch()], "valid": [batch()]}).run(
            ticks=3, evaluate=evaluate
        )
        assert [m.training for m in twin.modules()] == [True, True, True, False, True]
        state = (torch.get_rng_state().tolist(), np.random.rand(), random.random())
        runs.append((state, [p.tolist() for p in twin.state_dict().values()]))
    assert runs[0] == runs[1], "looking changed the run"
    assert seen["modes"] == [False] * 5
    assert (seen["grad"], seen["out"], seen["decay"]) == (False, False, nn.ParameterDict)
    assert type(result.last("look")["mean"]) is float


def test_an_evaluation_that_fails_puts_the_modes_back():
    made = engine()
    state = torch.get_rng_state()

    def fail(net):
        torch.rand(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made.run(ticks=1, evaluate={"fail": (fail, 1)})
    assert all(m.training for m in made.problems["net"].module.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "returned", [None, "high", [1.0], {"a": "b"}, {"a": None}, {"a": torch.ones(2, 2)}]
)
def test_an_evaluation_that_returns_no_numbers_is_named(returned):
    with pytest.raises(EvaluationError, match=r"'look'.*number.*got"):
        engine().run(ticks=1, evaluate={"look": (lambda net: returned, 1)})


def test_an_evaluation_may_return_a_parameter_itself():
    result = engine().run(ticks=1, evaluate={"alpha": (lambda decay: next(decay.parameters()), 1)})
    assert type(result.last("alpha")["alpha"]) is float


def scripted(values):
    """An evaluation that returns one value after the other."""
    left = iter(values)
    return {"valid": (lambda net: {"score": next(left)}, 1)}


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ([0.1, 0.9, 0.3], "max", 1),
        ([0.1, 0.9, 0.05], "min", 2),
        ([0.5, 0.5, 0.5], "max", 0),
        ([NAN, 0.2, 0.4], "max", 2),
        ([NAN, 0.2, 0.4], "min", 1),
        ([0.2, NAN, 0.1], "min", 2),
    ],
)
def test_the_best_evaluation(values, mode, best):
    net = net_of()
    keep = KeepBest("valid", "score", modules={"net": net}, mode=mode)
    states = []

    class Weights(mlo.Callback):
        def on_tick(self, record):
            states.append({k: t.clone() for k, t in net.state_dict().items()})

    result = engine(net).run(
        ticks=len(values), callbacks=[Weights(), keep], evaluate=scripted(values)
    )
    found = result.best("valid", "score", mode=mode)
    assert (found.tick, found.metrics["score"]) == (best, values[best])
    assert keep.best.tick == best
    assert keep.restore().tick == best
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, states[best][key]), key
    assert any(not torch.equal(states[0][key], states[-1][key]) for key in states[0])


def test_a_best_that_never_was_is_none_and_a_mistyped_mode_is_named():
    result = engine().run(ticks=1, evaluate=scripted([0.5]))
    assert result.best("test", "score") is None
    assert result.best("valid", "skore") is None
    for best in (lambda m: result.best("valid", "score", mode=m), lambda m: _keep(mode=m)):
        with pytest.raises(ConfigurationError, match=r"'min'.*'max'.*'maximum'"):
            best("maximum")


def _keep(**settings):
    return KeepBest("valid", "score", modules={"net": nn.Linear(1, 1)}, **settings)


@pytest.mark.parametrize(
    ("values", "settings", "ticks"),
    [
        ([1, 2, 1, 1, 9], {"patience": 2}, 4),
        ([1, 2, 1, 3, 1, 1, 9], {"patience": 2}, 6),
        ([3, 2, 1, 1, 0], {"patience": 1, "mode": "min"}, 4),
        ([1, 1.05, 1.09, 2], {"patience": 2, "least": 0.1}, 3),
        ([1, 2, 3], {"patience": 1}, None),
        ([NAN, NAN, 1], {"patience": 2}, 2),
    ],
)
def test_early_stopping_waits_its_patience(values, settings, ticks):
    stopper = EarlyStopping("valid", "score", **settings)
    result = engine().run(ticks=len(values), callbacks=[stopper], evaluate=scripted(values))
    if ticks is None:
        assert result.status is mlo.Status.COMPLETED
    else:
        assert (result.status, result.ticks) == (mlo.Status.STOPPED, ticks)
        assert "'score' of 'valid'" in result.reason


def test_step_and_run_go_on_from_one_another():
    one, other = (engine(net_of()) for _ in range(2))
    for name, problem in one.problems.items():
        problem.module.load_state_dict(other.problems[name].module.state_dict())
    data = {"train": [batch() for _ in range(3)], "valid": [batch() for _ in range(2)]}
    one, other = (engine(made.problems["net"].module, data=data) for made in (one, other))
    one.run(ticks=2)
    one.step()
    one.run(ticks=4)
    losses = [other.step().losses for _ in range(7)]
    assert one.tick == other.tick == 7
    assert one.step().losses == other.step().losses
    assert len({tuple(loss.values()) for loss in losses}) == 7


@pytest.mark.parametrize("hook", ["on_tick", "on_evaluation"])
def test_a_run_that_is_stopped_ends_with_every_evaluation_once(hook):
    log = Log([], stop_at=(hook, 2))
    evaluate = {"often": (count, 3), "seldom": (count, 50)}
    run = engine()
    result = run.run(ticks=100, callbacks=[log], evaluate=evaluate)
    assert (result.status, result.ticks) == (mlo.Status.STOPPED, 3)
    assert [(e.name, e.tick) for e in result.evaluations] == [("often", 2), ("seldom", 2)]
    end = count(run.problems["net"].module)
    assert result.last("often") == {"often": end}
    assert result.last("seldom") == {"seldom": end}
