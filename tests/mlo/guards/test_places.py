"""Where else something may not be finite: starts, micro-batches, later updates, closures, steps."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import DeclarationError, NonfiniteError
from mlo.plain import copied
from mlo.problem_state import problem_state

from .planted import same

DEFERRED = pytest.mark.parametrize("deferred", [False, True])
INF = float("inf")


def sgd(params):
    return torch.optim.SGD(params, 0.1, momentum=0.5)


def two(low=None, data=None, loss=None, **options):
    """A net that a number above it pulls at; its batches are added to its loss's gradient."""

    def fit(net, top, batch):
        return (net["w"] - top["a"]).square().sum() + (batch * net["w"]).sum()

    def judge(net):
        return net["w"].square().sum()

    given = {"params": {"w": torch.ones(2)}, "loss": loss or fit, "optimizer": sgd, **(low or {})}
    top = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd}
    problems = [mlo.Problem("net", **given), mlo.Problem("top", **top)]
    return mlo.Engine(problems, {"batch": data or [torch.tensor(0.0)]}, **options)


def still_fit(net, top):
    return (net["w"] - top["a"]).square().sum()


def states(engine):
    return copied({name: problem_state(p) for name, p in engine.problems.items()})


class Watcher(mlo.Callback):
    def __init__(self, look):
        self.look = look

    def on_move(self, record):
        self.look()


def raised(engine, *, deferred=False):
    engine._guard.deferred = deferred
    with pytest.raises(NonfiniteError) as caught:
        engine.run(4)
    return caught.value


NUMBERS = [torch.tensor(x) for x in (0.1, 0.2, 0.3, INF, 0.5, 0.6, 0.7, 0.8)]


def start_at(batch):
    return {"w": torch.ones(2) * batch}


@DEFERRED
@pytest.mark.parametrize("lookahead", [False, True])
def test_a_start_is_looked_at_and_not_written(deferred, lookahead):
    """Nor is the momentum renewed before the move that would begin there."""
    data = [torch.tensor(x) for x in (1.0, 1.0, INF)]
    low = {"start": start_at, "restart": 2}
    engine = two(low, [*data, *data], loss=still_fit, lookahead=lookahead)
    engine.step(), engine.step()
    before = states(engine)
    assert before["net"]["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0
    error = raised(engine, deferred=deferred)
    assert (error.problem, engine.tick) == ("net", 2)
    assert "problem 'net' begins anew (start=) is not finite (0 NaN, 2 inf of 2" in error.what
    assert ("on trial for problem 'top'" in error.what) is lookahead
    assert same(before, states(engine)) is True


@DEFERRED
def test_a_micro_batch_is_enough(deferred):
    engine = two({"accumulate": 2}, NUMBERS)  # the second half of the second tick
    engine.step()
    before = states(engine)
    error = raised(engine, deferred=deferred)
    assert (error.problem, engine.tick) == ("net", 1)
    assert same(before, states(engine)) is True


@DEFERRED
def test_earlier_updates_of_a_move_stay_and_the_incident_says_which_one_it_was(deferred):
    engine, twin = two({"repeat": 2}, NUMBERS), two({"repeat": 2}, NUMBERS)
    error = raised(engine, deferred=deferred)
    assert (error.problem, engine.tick, error.incident.place.update) == ("net", 1, 1)
    seen = []
    twin._guard.deferred = deferred
    with pytest.raises(NonfiniteError):
        twin.run(2, callbacks=[Watcher(lambda: seen.append(states(twin)))])
    if not deferred:
        assert same(seen[3], states(engine)) is True
        assert same(seen[3], error.incident.state) is True
    assert same(states(twin), states(engine)) is True


def adam_without_eps(params):
    return torch.optim.Adam(params, 0.1, eps=0.0)


@DEFERRED
@pytest.mark.parametrize("start", [False, True])
def test_a_step_that_overflows_is_taken_back_with_the_state_of_the_optimizer(deferred, start):
    """Adam without eps divides 0 by 0 where a gradient was never anything else."""

    def fit(net, top, batch):
        return (net["w"] - top["a"]).square().sum() + 0 * net["idle"].sum() * batch

    low = {"params": {"w": torch.ones(2), "idle": torch.ones(3)}, "optimizer": adam_without_eps}
    if start:
        low |= {"start": lambda batch: {"w": torch.zeros(2) + batch, "idle": torch.ones(3)}}
    engine = two(low, loss=fit)
    before = states(engine)
    error = raised(engine, deferred=deferred)
    assert error.problem == "net"
    assert "after its step by Adam (3 NaN, 0 inf of 5 entries, in 'idle')" in error.what
    assert same(before, states(engine)) is True
    assert len(engine.problems["net"].optimizer.state) == 0


def test_the_momentum_of_a_step_that_is_taken_back_is_that_from_before():
    data = [torch.tensor(x) for x in (0.1, 0.2, 1.7e308)]
    low = {"optimizer": lambda p: torch.optim.SGD(p, 2.0, momentum=0.9)}

    def fit(net, top, batch):
        return 0.1 * still_fit(net, top) + batch * (net["w"] - net["w"].detach()).sum()

    engine = two(low, data, loss=fit)
    engine.step(), engine.step()
    before = states(engine)
    assert before["net"]["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0
    error = raised(engine)
    assert "after its step by SGD" in error.what
    assert same(before, states(engine)) is True


def test_a_closure_may_look_where_nothing_is_finite_but_not_stay_there():
    """LBFGS without a line search jumps where the loss is infinite."""

    def fit(net, top):
        return net["w"].exp().sum() + (net["w"] - top["a"]).square().sum()

    low = {"optimizer": lambda p: torch.optim.LBFGS(p, lr=1e308, max_iter=3)}
    low["hypergradient"] = mlo.Dense()
    engine = two(low, loss=lambda net, top, batch: fit(net, top) + 0 * batch)
    before = states(engine)
    error = raised(engine)
    assert error.problem == "net"
    assert "after its step by LBFGS" in error.what
    assert same(before, states(engine)) is True
    low["optimizer"] = lambda p: torch.optim.LBFGS(p, 1.0, 3, line_search_fn="strong_wolfe")
    two(low, loss=lambda net, top, batch: fit(net, top) + 0 * batch).step()


@DEFERRED
def test_parameters_that_are_infinite_on_purpose_are_left_alone(deferred):
    low = {"params": {"w": torch.ones(2), "mask": torch.tensor([0.0, -INF])}}

    def fit(net, top, batch):
        return (net["w"] * net["mask"].detach().exp() - top["a"]).square().sum() + 0 * batch

    engine = two({**low, "loss": fit})
    engine._guard.deferred = deferred
    engine.step(), engine.step()
    assert engine.tick == 2


@DEFERRED
def test_a_gradient_whose_norm_overflows_is_finite(deferred):
    """Two entries of 3e38 have a norm of 4.2e38, beyond float32."""
    large = torch.tensor(3e38, dtype=torch.float32)

    def fit(net, top, batch):
        return still_fit(net, top) + large * (net["w"] - net["w"].detach()).sum() + 0 * batch

    low = {"params": {"w": torch.ones(2, dtype=torch.float32)}, "loss": fit}
    engine = two({**low, "optimizer": lambda p: torch.optim.SGD(p, 1e-38)})
    engine._guard.deferred = deferred
    assert engine.step().moves[0].gradient_norm.isinf()


def test_a_scheduler_that_cannot_be_copied_stops_what_would_take_ticks_back():
    class Bare:
        def step(self):
            pass

    low = {"scheduler": Bare()}
    for way in ("skip", "rollback"):
        with pytest.raises(DeclarationError, match="scheduler of problem 'net' has no state_dict"):
            two(low, guards=mlo.Guards(on_nonfinite=way))
    engine = two(low, NUMBERS)
    error = raised(engine)
    assert error.incident is None
    assert "nothing was kept to replay it: problem 'net'" in error.__notes__[0]
