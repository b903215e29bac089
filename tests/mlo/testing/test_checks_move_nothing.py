"""A check leaves everything as it was, bit for bit, whether it passes, fails or is interrupted."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import mlo
from mlo.errors import MloError
from mlo.testing import check_hypergradient

from ..test_nothing_moves import EFFECTS, Trip, advanced, program, seed, state, still, structure
from .checked import NAMES, aim, bowl, chain, lfm, noisy_net, pair, sgd

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")

LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
TICKS = pytest.mark.parametrize("ticks", [0, 2])


def everything(engine: mlo.Engine) -> tuple:
    """All that a later tick depends on, and all that a user can see; objects by identity."""
    streams = {
        name: (still(s.held), still(s._ahead), s.used, s._drawn, list(map(id, s.held)))
        for name, s in engine._streams.items()
    }
    mover = engine._mover
    problems = engine.problems.items()
    return (
        state(engine),
        structure(engine),
        streams,
        {n: id(p.hypergradient) for n, p in problems},
        {n: [id(p.grad) for p in prob.module.parameters()] for n, prob in problems},
        {n: [p.data_ptr() for p in prob.module.parameters()] for n, prob in problems},
        {n: [(k, still(b)) for k, b in prob.module.named_buffers()] for n, prob in problems},
        engine.graph.nested,
        engine.tick,
        dict(engine._counts),
        {n: id(m) for n, m in mover.moves.items()},
        still(mover.states),
        (set(mover._points.moved), dict(mover.restarts.made), still(mover._points._stood)),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def checked(engine: mlo.Engine, name: str, **settings) -> str:
    """Check, make sure that nothing moved, and say how it went."""
    before = everything(engine)
    try:
        check_hypergradient(engine, name, **settings)
        outcome = "passed"
    except (MloError, ZeroDivisionError, KeyboardInterrupt) as error:
        outcome = str(error)
    assert everything(engine) == before, (name, settings, outcome)
    return outcome


METHODS = {
    "OneStep": mlo.OneStep(),
    "FiniteDifference": mlo.FiniteDifference(check=True),
    "forward difference": mlo.FiniteDifference(scheme="forward"),
}


@LOOKAHEAD
@TICKS
@pytest.mark.parametrize("method", METHODS)
def test_nothing_moves_in_a_program_with_all_kinds_of_state(method, ticks, lookahead):
    engine = advanced(program(Trip(), METHODS[method], lookahead=lookahead), ticks)
    outcomes = {checked(engine, name, bias=9.0) for name in ("upper", "relearner", "learner")}
    assert "passed" in outcomes
    assert "wrong hypergradient" in checked(engine, "upper", step=0.5, losses=False)
    assert "nothing to see" in checked(engine, "upper", step=1e-17, losses=False)


@LOOKAHEAD
@TICKS
@pytest.mark.parametrize("effect", EFFECTS)
def test_nothing_moves_whatever_happens_at_any_call_of_any_loss(effect, ticks, lookahead):
    trip = Trip()
    engine = advanced(program(trip, mlo.OneStep(), lookahead=lookahead), ticks)
    trip.arm(0)
    assert checked(engine, "upper", count=1, bias=9.0) == "passed"
    calls = trip.calls
    assert calls > 20
    for at in (*range(1, 12), *range(12, calls + 1, 7), calls):
        trip.arm(at, EFFECTS[effect])
        outcome = checked(engine, "upper", count=1, bias=9.0)
        if effect in ("error", "interrupt"):
            assert outcome.startswith("in the middle"), at


@TICKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_single_and_half_precision_come_back_as_they_were(dtype, ticks):
    engine = lfm(net=noisy_net, dtype=dtype, optimizer=sgd(momentum=0.9))
    torch.set_default_dtype(torch.float32)  # the fixture puts double back
    for _ in range(ticks):
        engine.step()
    assert checked(engine, "upper") == "passed"
    assert "wrong hypergradient" in checked(engine, "upper", step=0.5, losses=False)
    assert torch.get_default_dtype() is torch.float32
    assert {p.dtype for n in NAMES for p in engine.problems[n].module.parameters()} == {dtype}


SOLVED = {
    "passes": ({}, "passed"),
    "wrong method": ({"method": mlo.Neumann(terms=1, alpha=0.1)}, "wrong method"),
    "wrong loss": (
        {"lower": lambda low, top: bowl(low, top) + low["w"].detach().sum()},
        "wrong loss",
    ),
    "unsolvable": ({"lower": lambda low, top: (low["w"] * top["x"]).sum()}, "could not be solved"),
    "nothing to see": ({"upper": lambda low, top: 0 * low["w"].sum()}, "nothing to see"),
}


@TICKS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", SOLVED)
def test_nothing_moves_where_lower_problems_are_solved(case, dtype, ticks):
    given, expected = SOLVED[case]
    given = {"lower": bowl, "upper": aim, "method": mlo.Dense(damping=0.0), **given}
    start = {
        "low": {"w": torch.ones(3, dtype=dtype)},
        "top": {"x": torch.full((3,), 0.4).to(dtype)},
    }
    engine = pair(given["lower"], given["upper"], given["method"], **start)
    engine = advanced(engine, ticks) if case != "unsolvable" else engine
    assert expected in checked(engine, "top")


@pytest.mark.parametrize("nested", ["exact", "projected", "partial"])
def test_nothing_moves_in_nested_programs(nested):
    trip = Trip()

    def judge(y, z):
        return trip((y["w"] - 1).square().sum() + z["w"].square().sum())

    methods = {"z": mlo.ConjugateGradient(), "y": mlo.Dense()}
    engine = advanced(chain(methods, nested=nested, losses={"x": judge}), 1)
    trip.arm(0)
    outcome = checked(engine, "x")
    assert outcome == "passed" if nested == "exact" else f"nested={nested}" in outcome
    calls = trip.calls
    for at in (1, 2, 5, calls // 2, calls):
        trip.arm(at, EFFECTS["error"])
        assert checked(engine, "x").startswith("in the middle")


class Counting(mlo.OneStep):
    """Remembers in its state how often it was asked, and can fail."""

    def __init__(self, fails_at: int = 0):
        object.__setattr__(self, "fails_at", fails_at)

    def init(self, condition):
        return torch.zeros(())

    def vjp(self, condition, cotangent, state):
        if self.fails_at and state + 1 >= self.fails_at:
            raise ZeroDivisionError("in the middle")
        result = super().vjp(condition, cotangent, state)
        return mlo.Result(result.grads, state + 1, result.info)


@TICKS
@pytest.mark.parametrize("fails_at", [0, 1])
def test_what_methods_remember_is_kept_and_a_failing_method_leaves_nothing(ticks, fails_at):
    engine = lfm(Counting())
    for _ in range(ticks):
        engine.step()
    for name in NAMES[:2]:
        object.__setattr__(engine.problems[name].hypergradient, "fails_at", fails_at)
    if fails_at and ticks:  # they have been asked before; the check begins with fresh states
        assert checked(engine, "upper").startswith("in the middle")
    else:
        assert checked(engine, "upper") == ("in the middle" if fails_at else "passed")


def test_a_refusal_moves_nothing():
    engine = lfm()
    for name, settings in [("uper", {}), ("upper", {"against": "x"}), ("upper", {"count": 0})]:
        before = everything(engine)
        with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
            check_hypergradient(engine, name, **settings)
        assert everything(engine) == before


@LOOKAHEAD
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ticks_after_checks_are_those_without_them(shuffle, dtype, lookahead):
    def trained(look: bool) -> list:
        seed()
        torch.set_default_dtype(dtype)
        engine, states = program(Trip(), mlo.OneStep(), lookahead=lookahead, shuffle=shuffle), []
        seed()
        for _ in range(4):
            if look:
                checked(engine, "upper", bias=9.0)
                checked(engine, "upper", step=0.5, losses=False)
            engine.step()
            states.append(state(engine))
        return states

    assert trained(True) == trained(False)


def test_ticks_after_checks_of_solutions_are_those_without_them():
    def trained(look: bool) -> list:
        engine, states = chain({"z": mlo.Dense(), "y": mlo.Dense()}), []
        for _ in range(3):
            if look:
                assert checked(engine, "x") == "passed"
            engine.step()
            states.append(state(engine))
        return states

    assert trained(True) == trained(False)


def test_batches_that_were_not_used_yet_are_used_by_the_first_tick():
    seen = []

    def fit(low, top, train):
        seen.append(train.detach().clone())
        return (low["w"] - top["x"] * train).square().sum()

    loader = DataLoader(torch.randn(12, 3), batch_size=1, shuffle=True)
    engine = pair(fit, aim, data={"train": loader})
    first = seen[0]
    checked(engine, "top")
    seen.clear()
    engine.step()
    assert all(torch.equal(batch, first) for batch in seen)
    assert engine._streams["train"].used == 1
