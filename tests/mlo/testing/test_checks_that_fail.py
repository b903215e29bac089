"""`check_hypergradient` on programs that are wrong: the message says what it is, and whose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import mlo
from mlo.errors import CheckError, DeclarationError
from mlo.testing import check_hypergradient
from mlo.vectors import times

from .checked import (
    LOSSES,
    LOWER,
    MIDDLE,
    NAMES,
    UPPER,
    aim,
    bowl,
    chain,
    judge,
    lfm,
    pair,
    relearn,
    staged,
)


def refused(engine: mlo.Engine, name: str = UPPER, **settings) -> CheckError:
    with pytest.raises(CheckError) as caught:
        check_hypergradient(engine, name, **settings)
    return caught.value


# Methods.


@dataclasses.dataclass(frozen=True)
class Scaled(mlo.OneStep):
    """One step, times a factor."""

    factor: float = 1.0

    def vjp(self, condition, cotangent, state):
        return super().vjp(condition, times(cotangent, (self.factor,) * len(cotangent)), state)


@dataclasses.dataclass(frozen=True)
class ScaledSolve(mlo.Dense):
    """A dense solve, times a factor."""

    factor: float = 1.0

    def solve(self, condition, cotangent):
        found = super().solve(condition, cotangent)
        scaled = times(found.adjoint, (self.factor,) * len(cotangent))
        return dataclasses.replace(found, adjoint=scaled)


FACTORS = {"sign": -1.0, "factor 2": 2.0, "a tenth": 1.1}
WHO = pytest.mark.parametrize("who", [LOWER, MIDDLE])


@WHO
@pytest.mark.parametrize("case", FACTORS)
@pytest.mark.parametrize("lookahead", [False, True])
def test_a_method_that_scales_its_step_is_named_with_its_problem(lookahead, case, who):
    engine = lfm({who: Scaled(factor=FACTORS[case])}, lookahead=lookahead)
    error = refused(engine, tolerance=1e-6)  # the learner's share is about 1e-4
    assert error.problem == who
    assert str(error).startswith(f"wrong method: problem '{who}': hypergradient=Scaled makes")
    assert "bias=" in str(error)
    other = {LOWER: MIDDLE, MIDDLE: LOWER}[who]
    assert f"'{other}'" not in str(error)


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("case", FACTORS)
def test_a_method_that_scales_its_solution_is_named_with_its_problem(case, who):
    methods = {"a": mlo.Dense(), "b": mlo.Dense(), who: ScaledSolve(factor=FACTORS[case])}
    error = refused(staged(methods), "top")
    assert error.problem == who
    assert f"wrong method: problem '{who}': hypergradient=ScaledSolve" in str(error)


@pytest.mark.parametrize("who", ["z", "y"])
@pytest.mark.parametrize("case", FACTORS)
def test_of_nested_methods_the_wrong_one_is_named(case, who):
    methods = {"z": mlo.Dense(), "y": mlo.Dense(), who: ScaledSolve(factor=FACTORS[case])}
    error = refused(chain(methods), "x")
    assert error.problem == who
    assert f"wrong method: problem '{who}': hypergradient=ScaledSolve" in str(error)


def test_of_two_wrong_methods_the_worse_one_is_named():
    methods = {"a": ScaledSolve(factor=1.01), "b": ScaledSolve(factor=1.5)}
    assert refused(staged(methods), "top").problem == "b"
    methods = {"a": ScaledSolve(factor=1.5), "b": ScaledSolve(factor=1.01)}
    assert refused(staged(methods), "top").problem == "a"


@pytest.mark.parametrize("who", ["a", "b"])
def test_too_few_terms_are_a_bias_that_must_be_asked_for(who):
    exact = mlo.Neumann(terms=200, alpha=0.3)
    few = mlo.Neumann(terms=3, alpha=0.3)
    engine = staged({"a": exact, "b": exact, who: few})
    error = refused(engine, "top")
    assert f"wrong method: problem '{who}': hypergradient=Neumann" in str(error)
    found = check_hypergradient(engine, "top", bias=1.0)
    assert found.bias > 1e-3
    assert found.error < 1e-5
    assert max(found.biases, key=found.biases.get) == who
    refused(engine, "top", bias=0.9 * found.bias)
    assert check_hypergradient(engine, "top", bias=1.1 * found.bias) == found


def test_a_difference_over_a_silly_radius_is_named():
    engine = lfm({LOWER: mlo.OneStep(), MIDDLE: mlo.FiniteDifference(radius=30.0)})
    error = refused(engine)
    assert f"wrong method: problem '{MIDDLE}': hypergradient=FiniteDifference" in str(error)


def test_a_first_order_baseline_is_named():
    def judged(low, top):
        return aim(low, top) + top["x"].square().sum()

    error = refused(pair(bowl, judged, mlo.Direct()), "top")
    assert "wrong method: problem 'low': hypergradient=Direct" in str(error)


@dataclasses.dataclass(frozen=True)
class Broken(mlo.Dense):
    """Answers NaN."""

    def solve(self, condition, cotangent):
        return mlo.LinearSolution(times(cotangent, (float("nan"),) * len(cotangent)))


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")
def test_a_method_that_answers_nan_is_named(who):
    methods = {"a": mlo.Dense(), "b": mlo.Dense(), who: Broken()}
    error = refused(staged(methods), "top", bias=1e9)
    assert f"problem '{who}': hypergradient=Broken" in str(error)
    assert error.problem == who


@pytest.mark.parametrize("nested", ["projected", "partial"])
def test_what_an_option_leaves_out_is_a_bias_of_its_own(nested):
    engine = chain({"z": mlo.Dense(), "y": mlo.Dense()}, nested=nested)
    error = refused(engine, "x")
    assert str(error).startswith(f"wrong method: nested={nested} makes")
    assert error.problem == "x"
    found = check_hypergradient(engine, "x", bias=1.0)
    assert found.bias == found.biases[f"nested={nested}"] > 1e-3
    assert (found.biases["z"], found.biases["y"]) == (0, 0)
    assert engine.graph.nested == nested


def test_methods_are_judged_beside_the_option_not_blamed_for_it():
    engine = chain({"z": ScaledSolve(factor=3.0), "y": mlo.Dense()}, nested="projected")
    found = check_hypergradient(engine, "x", bias=10.0)
    assert found.biases["y"] == 0
    assert found.biases["z"] > 1e-3
    assert found.biases["nested=projected"] > 1e-3


# Losses. Each wrapper spoils one term of a loss; where, is a parameter.


class WrongBackward(torch.autograd.Function):
    """The identity, with a slope of 1.5."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return 1.5 * cotangent


class WrongDoubleBackward(torch.autograd.Function):
    """A square, whose slope 2 x counts as a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * cotangent


def spoiled(name: str, spoil: Callable) -> Callable:
    """The loss of a problem plus a term of its own network (or of what it judges), spoiled."""
    if name == LOWER:

        def loss(learner, upper, train):
            return LOSSES[LOWER](learner, upper, train) + spoil(learner(train[0]))

    elif name == MIDDLE:

        def loss(relearner, learner, upper, train, valid):
            right = LOSSES[MIDDLE](relearner, learner, upper, train, valid)
            return right + spoil(relearner(train[0]))

    else:

        def loss(relearner, valid):
            return judge(relearner, valid) + spoil(relearner(valid[0]))

    return loss


class Counter:
    """Counts how often it was called."""

    def __init__(self):
        self.count = 0

    def __call__(self, out):
        self.count += 1
        return out.mean() * (1 + 1e-3 * self.count)


def own_generator():
    draw = torch.Generator().manual_seed(0)
    return lambda out: (out * torch.randn(out.shape, generator=draw)).mean()


FIRST = {
    "a wrong backward": lambda: lambda out: WrongBackward.apply(out).square().mean(),
    "a detached part": lambda: lambda out: (out * out.detach()).mean(),
    "a number taken out": lambda: lambda out: out.mean() * out.square().mean().item(),
    "rounding": lambda: lambda out: out.float().double().square().mean(),
}
STOCHASTIC = {"a generator of its own": own_generator, "a hidden count": Counter}
NAME = pytest.mark.parametrize("name", NAMES)


@NAME
@pytest.mark.parametrize("case", FIRST)
def test_a_loss_whose_gradient_is_not_its_slope_is_named(case, name):
    engine = lfm(losses={name: spoiled(name, FIRST[case]())})
    error = refused(engine)
    assert error.problem == name
    read = {LOWER: LOWER, MIDDLE: MIDDLE, UPPER: MIDDLE}[name]
    start = f"wrong loss: problem '{name}': the gradient of its loss with respect to '{read}'"
    assert str(error).startswith(start)
    assert "losses=False" in str(error)


@pytest.mark.parametrize("name", [LOWER, MIDDLE])
def test_a_loss_whose_second_derivatives_are_wrong_is_named(name):
    engine = lfm(losses={name: spoiled(name, lambda out: WrongDoubleBackward.apply(out).mean())})
    error = refused(engine)
    assert error.problem == name
    assert str(error).startswith(f"wrong loss: problem '{name}': the second derivatives")


def test_second_derivatives_that_nobody_takes_are_not_asked_for():
    """The upper loss is differentiated once, and does not read its own problem."""
    engine = lfm(losses={UPPER: spoiled(UPPER, lambda out: WrongDoubleBackward.apply(out).mean())})
    assert check_hypergradient(engine, UPPER).error < 1e-5


@NAME
@pytest.mark.parametrize("case", STOCHASTIC)
def test_a_loss_that_is_no_function_is_named(case, name):
    engine = lfm(losses={name: spoiled(name, STOCHASTIC[case]())})
    error = refused(engine)
    assert error.problem == name
    assert str(error).startswith(f"stochastic loss: problem '{name}': two evaluations")


def test_random_numbers_of_the_global_generators_are_replayed():
    def noise(out):
        return (out * torch.rand_like(out)).mean() + F.dropout(out, 0.4).square().mean()

    for name in NAMES:
        assert check_hypergradient(lfm(losses={name: spoiled(name, noise)}), UPPER).error < 1e-5


def test_a_response_that_the_upper_loss_detaches_is_its_fault():
    def cut(relearner, upper, valid):
        out = relearner(valid[0]).detach()
        return F.cross_entropy(out, valid[1]) + 0.1 * upper(valid[0]).square().mean()

    error = refused(lfm(losses={UPPER: cut}))
    assert error.problem == UPPER
    assert f"wrong loss: problem '{UPPER}'" in str(error)
    assert f"with respect to '{MIDDLE}'" in str(error)


def test_mistakes_that_the_middle_loss_detaches_are_its_fault():
    def cut(relearner, learner, upper, train, valid):
        mistakes = F.cross_entropy(learner(valid[0]), valid[1]).detach()
        weights = (upper(train[0]).mean(1) * mistakes).sigmoid()
        losses = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
        return (weights * losses).mean()

    error = refused(lfm(losses={MIDDLE: cut}))
    assert error.problem == MIDDLE
    assert f"with respect to '{LOWER}'" in str(error)


class NaNSlope(torch.autograd.Function):
    """Zero, with a slope of NaN."""

    @staticmethod
    def forward(ctx, x):
        return 0 * x

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * float("nan")


@pytest.mark.parametrize("read", [LOWER, MIDDLE, UPPER])
def test_a_slope_of_nan_is_named_whatever_else_the_loss_reads(read):
    def loss(relearner, learner, upper, train, valid):
        module = {LOWER: learner, MIDDLE: relearner, UPPER: upper}[read]
        right = relearn(relearner, learner, upper, train, valid)
        return right + NaNSlope.apply(module(train[0])).mean()

    error = refused(lfm(losses={MIDDLE: loss}))
    assert error.problem == MIDDLE
    assert f"wrong loss: problem '{MIDDLE}'" in str(error)
    assert f"the gradient of its loss with respect to '{read}'" in str(error)


def test_without_the_losses_check_what_they_detach_is_an_error_of_the_whole():
    engine = lfm(losses={UPPER: spoiled(UPPER, FIRST["a detached part"]())})
    error = refused(engine, losses=False)
    assert str(error).startswith(f"wrong hypergradient: problem '{UPPER}': even with exact rules")


def test_a_detachment_below_that_is_meant_is_let_through_and_still_measured():
    """The lower gradient is taken as it is written: what the mean does to it is left out twice."""

    def baseline(low, top):
        return bowl(low, top) - low["w"].detach().sum() * top["x"].detach().sum()

    engine = pair(baseline, aim)
    assert str(refused(engine, "top")).startswith("wrong loss: problem 'low'")
    found = check_hypergradient(engine, "top", losses=False)
    assert found.losses == ()
    assert found.error < 1e-5


# Moves of which the method stands for a part.


def test_a_bound_that_binds_is_named_as_what_the_method_leaves_out():
    """Clipping counts as a constant factor, which is not the slope of the clipped step."""
    error = refused(lfm(clip_norm=1e-2))
    assert "clip_norm" in str(error)
    assert not str(error).startswith("wrong loss")


def test_earlier_updates_of_a_move_are_named_as_what_the_method_leaves_out():
    """One step is the last update; the earlier ones answer too, and are not followed."""
    with pytest.raises(DeclarationError, match="has repeat=3"):
        check_hypergradient(lfm(repeat=3), UPPER)


def test_a_bound_that_binds_is_an_error_of_the_size_of_what_is_left_out():
    """For c g / |g| the slope leaves out the part along g; here from two closed forms."""
    x = torch.tensor([0.7, 0.1, -0.4])

    def fit(low, top):
        return 0.5 * (low["w"] - top["x"]).square().sum()

    engine = pair(fit, lambda low: low["w"].square().sum(), clip_norm=0.1)
    w = torch.tensor([0.3, -0.2, 0.5])
    g = w - x
    pull = 2 * (w - 0.1 * 0.1 * g / g.norm())
    kept = 0.1 * 0.1 / g.norm() * pull
    whole = kept - g * (g @ kept) / (g @ g)
    missing = float((kept - whole).norm() / max(kept.norm(), whole.norm()))
    found = engine.hypergradient("top")["x"]
    torch.testing.assert_close(found, kept, rtol=1e-5, atol=1e-5)  # 1e-6 beside the norm
    error = refused(engine, "top")
    assert missing > 0.1
    assert f"{missing:.0e}"[:1] in str(error)
    check_hypergradient(engine, "top", tolerance=1.2 * missing)
