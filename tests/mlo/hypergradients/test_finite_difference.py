"""The finite-difference hypergradient against the same formula by hand, and its limits."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

import mlo
from mlo import FiniteDifference, Outcome
from mlo.errors import HypergradientWarning

from ..oracles import Level, flat, gradient, relative, unflat
from .steps import OPTIMIZERS, SGD, groups_of
from .test_one_step import engine_of, reference, snapshot, two_levels

MAKE = groups_of(SGD, {"lr": 0.3}, {"lr": 0.02}, lr=0.1)
RATES = {"a": 0.3, "b": 0.02, "c": 0.1}


def by_hand(levels, radius: float, scheme: str) -> dict[str, Tensor]:
    """DARTS, equations 7 and 8, around the point from which the lower problem moves."""
    low, top = levels
    w = {k: t.clone().requires_grad_() for k, t in low.start.items()}
    x = {k: t.clone().requires_grad_() for k, t in top.start.items()}
    loss = low.at({"low": w, "top": x})
    lr = torch.cat([torch.full_like(t.reshape(-1), RATES[k]) for k, t in w.items()])
    w1 = unflat((flat(w) - lr * flat({k: gradient(loss, t) for k, t in w.items()})).detach(), w)
    w1 = {k: t.requires_grad_() for k, t in w1.items()}
    loss = top.at({"low": w1, "top": x})
    direct = flat({k: gradient(loss, t, graph=False) for k, t in x.items()})
    u = lr * flat({k: gradient(loss, t, graph=False) for k, t in w1.items()})
    e = radius / u.norm()

    def slope(sign: float) -> Tensor:
        at = unflat(flat(w).detach() + sign * e * u, w)
        loss = low.at({"low": at, "top": x})
        return flat({k: gradient(loss, t, graph=False) for k, t in x.items()})

    if scheme == "central":
        response = (slope(1) - slope(-1)) / (2 * e)
    else:
        response = (slope(1) - slope(0)) / e
    return unflat(direct - response, x)


def response_of(engine: mlo.Engine) -> mlo.Info:
    """How the response of the next tick went."""
    (move,) = [m for m in engine.step().moves if m.problem == "top"]
    (response,) = move.responses
    return response.info


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("radius", [1e-3, 1e-2, 0.5])
@pytest.mark.parametrize("retain", [True, False])
def test_it_is_the_formula_written_by_hand(radius, scheme, retain):
    levels = two_levels()
    method = FiniteDifference(radius=radius, scheme=scheme)
    found = engine_of(levels, MAKE, method=method, retain=retain).hypergradient("top")
    # Rounding over the smallest shift.
    assert relative(found, by_hand(levels, radius, scheme)) < 1e-11


@pytest.mark.parametrize(("scheme", "order"), [("central", 2), ("forward", 1)])
def test_its_distance_from_the_exact_step_falls_with_the_radius(scheme, order):
    levels = two_levels(judge=True)
    exact = engine_of(levels, MAKE, method=mlo.OneStep()).hypergradient("top")

    def error(radius: float) -> float:
        method = FiniteDifference(radius=radius, scheme=scheme)
        return relative(engine_of(levels, MAKE, method=method).hypergradient("top"), exact)

    errors = [error(0.01 / 2**k) for k in range(3)]
    assert errors[0] > 1e-7, "a loss that is quadratic along the shift shows no order"
    for coarse, fine in itertools.pairwise(errors):
        # The next term of the expansion is a radius smaller: a few per cent.
        assert abs(coarse / fine / 2**order - 1) < 0.05


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_it_follows_the_recorded_move_of_any_known_optimizer(name, scheme, lookahead):
    levels, (make, rule) = two_levels(), OPTIMIZERS[name]
    method = FiniteDifference(radius=1e-5, scheme=scheme)
    engine = engine_of(levels, make, method=method, lookahead=lookahead)
    engine.step()
    then = snapshot(engine)
    now = then["top"]
    if not lookahead:
        engine.step()
        now = snapshot(engine)["top"]
    found = engine.hypergradient("top")
    # O(radius) at worst, plus rounding of 1e-16 over the radius.
    assert relative(found, reference(levels, rule, then, now)) < 1e-5


def in_dtype(levels: list[Level], dtype: torch.dtype) -> list[Level]:
    """Parameters in `dtype`, losses as they are."""

    def cast(params: dict, dtype: torch.dtype) -> dict:
        return {k: t.to(dtype) for k, t in params.items()}

    def wide(loss):
        return lambda *read: loss(*(cast(dict(r.items()), torch.float64) for r in read))

    return [
        dataclasses.replace(level, loss=wide(level.loss), start=cast(level.start, dtype))
        for level in levels
    ]


RADII = {torch.float64: 1e-4, torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 1.0}


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("dtype", RADII)
def test_the_default_radius_survives_the_rounding_of_the_parameters(dtype, scheme):
    levels = in_dtype(two_levels(judge=True), dtype)

    def found(radius: float | None) -> dict[str, Tensor]:
        method = FiniteDifference(radius=radius, scheme=scheme)
        return engine_of(levels, MAKE, method=method).hypergradient("top")

    default = found(None)
    assert all(t.dtype is dtype for t in default.values())
    same, other = found(RADII[dtype]), found(3 * RADII[dtype])
    assert all(torch.equal(default[k], same[k]) for k in default)
    assert not all(torch.equal(default[k], other[k]) for k in default)


def test_the_coarsest_parameter_sets_the_default_radius():
    levels = two_levels()
    rough = dict(levels[0].start, b=levels[0].start["b"].bfloat16())
    wide = in_dtype(levels, torch.float64)
    levels = [dataclasses.replace(wide[0], start=rough), wide[1]]
    found, same = (
        engine_of(levels, MAKE, method=FiniteDifference(radius=r)).hypergradient("top")
        for r in (None, 1.0)
    )
    assert all(torch.equal(found[k], same[k]) for k in found)


def test_autocast_widens_the_default_radius():
    levels = in_dtype(two_levels(judge=True), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, same, other = (
            engine_of(levels, MAKE, method=FiniteDifference(radius=r)).hypergradient("top")
            for r in (None, 0.1, 0.01)
        )
    assert all(torch.equal(found[k], same[k]) for k in found)
    assert not all(torch.equal(found[k], other[k]) for k in found)


@pytest.mark.parametrize("tolerance", [1e-12, 1.0])
@pytest.mark.parametrize("radius", [0.01, 1.0])
@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_a_check_reports_how_far_two_radii_disagree(radius, scheme, tolerance):
    levels = two_levels(judge=True)
    method = FiniteDifference(radius=radius, scheme=scheme, check=True, tolerance=tolerance)
    info = response_of(engine_of(levels, MAKE, method=method))
    whole, half = (by_hand(levels, r, scheme) for r in (radius, radius / 2))
    disagreement = relative(whole, half)
    assert 1e-9 < disagreement < 1.0
    torch.testing.assert_close(float(info.residual), disagreement, rtol=1e-5, atol=0)
    assert info.outcome is (Outcome.INACCURATE if tolerance < 1 else Outcome.EXPLICIT)
    # The gradient is that of the radius that was asked for.
    engine = engine_of(levels, MAKE, method=dataclasses.replace(method, tolerance=1.0))
    assert relative(engine.hypergradient("top"), whole) < 1e-11


def test_a_disagreement_is_told_where_a_hypergradient_is_asked_for():
    method = FiniteDifference(check=True, tolerance=1e-12)
    engine = engine_of(two_levels(judge=True), MAKE, method=method)
    with pytest.warns(HypergradientWarning, match=r"'low' by FiniteDifference.*change the radius"):
        engine.hypergradient("top")


def pair(method, w, x, low, top, *, rate=0.1) -> mlo.Engine:
    """Two problems of one tensor each, with the given losses."""

    def sgd(params):
        return SGD(params, rate)

    lower = mlo.Problem(
        "low", params={"w": torch.tensor(w)}, loss=low, optimizer=sgd, hypergradient=method
    )
    upper = mlo.Problem("top", params={"x": torch.tensor(x)}, loss=top, optimizer=sgd)
    return mlo.Engine([lower, upper], lookahead=True)


def kinked(method: mlo.Hypergradient) -> mlo.Engine:
    """A ReLU whose kink lies 0.004 from where the lower problem moves, F = w."""

    def loss(low, top):
        return torch.relu(low["w"]) * top["x"] + 0 * low["w"]

    return pair(method, 0.004, 1.0, loss, lambda low: low["w"])


def test_a_kink_within_the_radius_is_seen_by_the_check():
    assert kinked(mlo.OneStep()).hypergradient("top")["x"] == -0.1
    found = kinked(FiniteDifference(radius=0.01)).hypergradient("top")["x"]
    # The slope of ReLU over [-0.006, 0.014].
    torch.testing.assert_close(found, torch.tensor(-0.1 * 0.014 / 0.02))
    info = response_of(kinked(FiniteDifference(radius=0.01, check=True)))
    torch.testing.assert_close(info.residual, torch.tensor(0.2 / 0.9))
    assert info.outcome is Outcome.INACCURATE
    assert response_of(kinked(FiniteDifference(radius=1e-3, check=True))).residual < 1e-12


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_a_zero_cotangent_gives_zero(scheme, check):
    def fit(low, top):
        return (low["w"] - top["x"]).square().sum() / 2

    # The move leads to (w + x) / 2, where the upper loss is flat in w.
    def judge(low, top):
        return (low["w"] - torch.tensor([2.0, 2.5])).square().sum() + top["x"]

    def engine(method):
        return pair(method, [1.0, 2.0], 3.0, fit, judge, rate=0.5)

    method = FiniteDifference(scheme=scheme, check=check)
    assert engine(method).hypergradient("top")["x"] == 1.0
    info = response_of(engine(method))
    assert info.outcome is Outcome.ZERO


def test_one_step_honours_detach_and_a_difference_sees_through_it():
    """f = w stop(w) x: df/dx = w^2 has the slope 2w, but the gradient is stop(w) x."""

    def loss(low, top):
        return low["w"] * low["w"].detach() * top["x"]

    def found(method):
        return pair(method, 3.0, 1.0, loss, lambda low: low["w"]).hypergradient("top")["x"]

    torch.testing.assert_close(found(mlo.OneStep()), torch.tensor(-0.1 * 3.0))
    torch.testing.assert_close(found(FiniteDifference()), torch.tensor(-0.1 * 6.0))


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({}, 2),
        ({"scheme": "forward"}, 1),
        ({"check": True}, 4),
        ({"scheme": "forward", "check": True}, 2),
    ],
)
def test_it_costs_the_evaluations_that_it_reports(settings, evaluations):
    calls: list[int] = []
    levels = two_levels()
    loss = levels[0].loss
    levels[0] = dataclasses.replace(
        levels[0], loss=lambda *a: calls.append(1) or loss(*a), explicit=levels[0].reads
    )
    engine = engine_of(levels, MAKE, method=FiniteDifference(**settings))
    calls.clear()
    engine.hypergradient("top")
    # One for the trial move itself.
    assert len(calls) == 1 + evaluations
    assert int(response_of(engine).products) == evaluations


@pytest.mark.parametrize("settings", [{"scheme": "backward"}, {"radius": 0.0}])
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    match = rf"FiniteDifference\({name}=\.\.\.\)"
    with pytest.raises(mlo.errors.ConfigurationError, match=match):
        FiniteDifference(**settings)
