"""`Sama` against its formula written by hand, and beside the methods that it differs from."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import mlo
from mlo import FiniteDifference, Outcome, Sama
from mlo.errors import DoubleBackwardError
from mlo.testing import Verdict, check_method

from ..oracles import relative
from .steps import OPTIMIZERS, SGD, Adam, adam
from .test_finite_difference import response_of
from .test_one_step import engine_of, reference, snapshot, two_levels


def published(p: Tensor, g: Tensor, group: dict, state: dict) -> tuple[Tensor, dict]:
    """Adam's step with SAMA's derivative, which is that of no function: value and slope apart."""
    (b1, b2), sign = group["betas"], -1.0 if group["maximize"] else 1.0
    reached, new = adam(p, g, group, state)
    seen = sign * g.detach()
    if not group["decoupled_weight_decay"]:
        seen = seen + group["weight_decay"] * p.detach()
    m, s = state["exp_avg"], state["exp_avg_sq"]
    top = (1 - b1) * b2 * s - b1 * (1 - b2) * m * seen
    after = b2 * s + (1 - b2) * seen**2
    if group["amsgrad"]:
        largest = state["max_exp_avg_sq"]
        flat = (1 - b1) * largest  # the denominator is a constant where an older one was larger
        top = torch.where(after > largest, top, flat)
        after = torch.maximum(after, largest)
    slope = sign * group["lr"] * top / (after.sqrt() + group["eps"]) ** 3
    return reached.detach() - slope.detach() * (g - g.detach()), new


def rule_of(name: str):
    _, rule = OPTIMIZERS[name]
    return published if rule is adam else rule


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_formula_written_by_hand(name, lookahead):
    levels, (make, _) = two_levels(), OPTIMIZERS[name]
    engine = engine_of(levels, make, method=Sama(radius=1e-4), lookahead=lookahead)
    for _ in range(3):
        engine.step()
    then = snapshot(engine)
    now = then["top"]
    if not lookahead:
        engine.step()
        now = snapshot(engine)["top"]
    found = engine.hypergradient("top")
    # The radius squared, and rounding over it.
    assert relative(found, reference(levels, rule_of(name), then, now)) < 1e-7


def test_amsgrad_is_adapted_where_an_older_gradient_was_larger_too():
    levels, (make, _) = two_levels(), OPTIMIZERS["amsgrad"]
    engine = engine_of(levels, make, method=Sama(radius=1e-4))
    for _ in range(3):
        engine.step()
    first, *_ = engine.problems["low"].optimizer.state.values()
    first["max_exp_avg_sq"] *= 100
    then = snapshot(engine)
    found, expected = engine.hypergradient("top"), reference(levels, published, then, then["top"])
    assert relative(found, expected) < 1e-7


def test_it_is_a_finite_difference_bit_for_bit_where_nothing_is_adapted():
    for name, (make, rule) in OPTIMIZERS.items():
        if rule is adam:
            continue
        sama, same = (
            engine_of(two_levels(), make, method=method) for method in (Sama(), FiniteDifference())
        )
        for engine in (sama, same):
            engine.step()
        found, expected = sama.hypergradient("top"), same.hypergradient("top")
        assert all(torch.equal(found[k], expected[k]) for k in found), name


@pytest.mark.parametrize("ticks", [2, 11])
def test_its_response_differs_from_the_exact_one_by_the_bias_corrections(ticks):
    """k1 / sqrt(k2) at step t; the direct gradient is that of the same point."""
    make = lambda ps: Adam(ps, 1e-3, eps=1e-14)  # noqa: E731
    answers = {}
    for method in (mlo.OneStep(), Sama(radius=1e-4), mlo.Direct()):
        engine = engine_of(two_levels(), make, method=method)
        for group in engine.problems["top"].optimizer.param_groups:
            group["lr"] = 0.0  # so that all three see the same moves
        for _ in range(ticks):
            engine.step()
        answers[type(method)] = engine.hypergradient("top")
    t = ticks + 1
    factor = (1 - 0.9**t) / (1 - 0.999**t) ** 0.5
    assert factor > 4
    direct = answers[mlo.Direct]
    expected = {k: factor * (g - direct[k]) for k, g in answers[mlo.OneStep].items()}
    for k, found in answers[Sama].items():
        torch.testing.assert_close(found - direct[k], expected[k], rtol=1e-5, atol=1e-8)


def test_at_the_first_step_of_adam_there_is_nothing_to_adapt():
    engine = engine_of(two_levels(), lambda ps: Adam(ps, 0.1), method=Sama())
    assert response_of(engine).outcome is Outcome.ZERO


def double(values):
    """The square, by a function that cannot be differentiated twice."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    return Square.apply(values)


def test_it_needs_first_derivatives_only():
    """f = (w - x)^2 / 2 and F = w: dF/dx = rate."""

    def engine(method):
        low = mlo.Problem(
            "low",
            params={"w": torch.tensor([3.0, 1.0])},
            loss=lambda low, top: double(low["w"] - top["x"]).sum() / 2,
            optimizer=lambda ps: SGD(ps, 0.25),
            hypergradient=method,
        )
        top = mlo.Problem(
            "top",
            params={"x": torch.tensor([1.0, 2.0])},
            loss=lambda low, top: low["w"].sum() + 0.0 * top["x"].sum(),
            optimizer=lambda ps: SGD(ps, 0.1),
        )
        return mlo.Engine([low, top], lookahead=True)

    found = engine(Sama()).hypergradient("top")["x"]
    torch.testing.assert_close(found, torch.full((2,), 0.25), rtol=1e-10, atol=0)
    with pytest.raises((DoubleBackwardError, RuntimeError)):
        engine(mlo.OneStep()).hypergradient("top")


@pytest.mark.parametrize(("check", "evaluations"), [(False, 2), (True, 4)])
def test_it_costs_the_evaluations_that_it_reports(check, evaluations):
    calls: list[int] = []
    levels = two_levels()
    loss = levels[0].loss
    levels[0] = dataclasses.replace(
        levels[0], loss=lambda *a: calls.append(1) or loss(*a), explicit=levels[0].reads
    )
    engine = engine_of(levels, lambda ps: Adam(ps, 0.05), method=Sama(check=check))
    engine.step()
    calls.clear()
    engine.hypergradient("top")
    # One for the trial move itself.
    assert len(calls) == 1 + evaluations
    info = response_of(engine)
    assert int(info.products) == evaluations
    assert (info.residual is not None) is check


@pytest.mark.parametrize("tolerance", [1e-12, 1.0])
def test_a_check_names_a_disagreement(tolerance):
    levels = two_levels(judge=True)
    method = Sama(radius=0.1, check=True, tolerance=tolerance)
    engine = engine_of(levels, lambda ps: Adam(ps, 0.05), method=method)
    engine.step()
    info = response_of(engine)
    assert 1e-9 < float(info.residual) < 1.0
    assert info.outcome is (Outcome.INACCURATE if tolerance < 1 else Outcome.EXPLICIT)


def test_it_passes_its_check_and_the_exact_derivative_does_not_pass_for_it():
    report = check_method(Sama(radius=1e-3))
    assert set(report.verdicts.values()) == {Verdict.EXACT}
    assert "moves of Adam" in report.verdicts

    class Unadapted(Sama):
        needs = Sama.needs - {"adaptation"}

        def vjp(self, condition, cotangent, state):
            return super().vjp(condition, cotangent, state)

    assert set(check_method(Unadapted(radius=1e-3)).verdicts.values()) == {Verdict.EXACT}

    class Mistaken(Sama):
        """Half of the direction: the length of a shift must not matter, its factor must."""

        def vjp(self, condition, cotangent, state):
            result = super().vjp(condition, tuple(v / 2 for v in cotangent), state)
            return dataclasses.replace(result)

    with pytest.raises(mlo.errors.CheckError, match=r"its error is 5\.0e-01"):
        check_method(Mistaken(radius=1e-3))
