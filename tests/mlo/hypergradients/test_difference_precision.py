"""Finite differences on networks, in every precision, against exact products in float64."""

from __future__ import annotations

import contextlib
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from mlo import FiniteDifference, OneStep, Outcome

from .steps import SGD

DOUBLE, SINGLE, COARSE = torch.float64, torch.float32, torch.bfloat16
SEEDS = pytest.mark.parametrize("seed", [100, 101, 102])


def smooth() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 12), nn.GELU(), nn.Dropout(0.2), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 3)
    )


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.Conv1d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def engine(method, seed: int, dtype=DOUBLE, make=smooth) -> mlo.Engine:
    """Weights of examples above a network; the same numbers, as far as the dtype has them."""
    torch.manual_seed(seed)
    x, labels = torch.randn(2, 24, 5), torch.randint(0, 3, (2, 24))
    module, log = make(), 0.5 * torch.randn(24)
    for p in module.parameters():
        p.data = p.data.bfloat16().to(dtype)  # what every dtype has
    above = DOUBLE if dtype is DOUBLE else SINGLE

    def losses(net, k: int) -> Tensor:
        return F.cross_entropy(net(x[k].to(dtype)).to(above), labels[k], reduction="none")

    problems = [
        mlo.Problem(
            "net",
            module=module,
            loss=lambda net, weights: (weights["log"].sigmoid() * losses(net, 0)).mean(),
            optimizer=SGD(module.parameters(), 0.1),
            hypergradient=method,
        ),
        mlo.Problem(
            "weights",
            params={"log": log.to(above)},
            loss=lambda net: losses(net, 1).mean(),
            optimizer=lambda ps: SGD(ps, 0.1),
        ),
    ]
    return mlo.Engine(problems, lookahead=True)


def answer(method, seed: int, dtype=DOUBLE, make=smooth, *, autocast=False) -> tuple[Tensor, float]:
    """The gradient of the weights, all of it a response, and the residual that was reported."""
    built = engine(method, seed, dtype, make)
    torch.manual_seed(seed + 1)  # the same masks for every method
    context = torch.autocast("cpu", COARSE) if autocast else contextlib.nullcontext()
    with context:
        values, (response,) = built.total_gradient("weights")
    residual = response.info.residual
    return values["log"].double(), math.nan if residual is None else float(residual)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def exact_of(seed: int, make=smooth) -> Tensor:
    """Double backward, in float64 (with the masks of Dropout, hence the same for all)."""
    return answer(OneStep(), seed, make=make)[0]


@SEEDS
@pytest.mark.parametrize(
    ("dtype", "autocast", "scheme", "most"),
    [
        (DOUBLE, False, "central", 1e-8),
        (DOUBLE, False, "forward", 2e-4),
        (SINGLE, False, "central", 2e-4),
        (SINGLE, False, "forward", 2e-2),
        (SINGLE, True, "central", 0.1),
        (COARSE, False, "central", 0.2),
    ],
)
def test_the_default_radius_is_right_for_every_precision(seed, dtype, autocast, scheme, most):
    make = smooth if dtype is DOUBLE else without_dropout
    exact = exact_of(seed, make)
    found, _ = answer(FiniteDifference(scheme=scheme), seed, dtype, make, autocast=autocast)
    assert error(found, exact) < most


def without_dropout() -> nn.Module:
    """Masks are drawn in the dtype of what they mask, so other dtypes draw others."""
    return nn.Sequential(*(m for m in smooth() if not isinstance(m, nn.Dropout)))


@SEEDS
@pytest.mark.parametrize(
    ("dtype", "autocast", "radius"),
    [(SINGLE, False, 1e-4), (SINGLE, True, 0.01), (COARSE, False, 0.01)],
)
def test_a_radius_of_a_finer_precision_is_lost_in_rounding_and_the_check_says_so(
    seed, dtype, autocast, radius
):
    exact = exact_of(seed, without_dropout)

    def off(radius: float | None) -> tuple[float, float]:
        method = FiniteDifference(radius, check=True)
        found, residual = answer(method, seed, dtype, without_dropout, autocast=autocast)
        return error(found, exact), residual

    (good, _), (bad, residual) = off(None), off(radius)
    assert bad > 1.5 * good
    assert residual > bad / 4, "half the radius doubles the rounding"


@SEEDS
@pytest.mark.parametrize(("scheme", "order"), [("central", 2), ("forward", 1)])
def test_the_error_falls_with_the_power_of_the_radius_that_the_theory_says(seed, scheme, order):
    """In float64, with Dropout: another mask on one side would leave an error of order 1."""
    exact = exact_of(seed)
    radii = [0.02 / 2**k for k in range(5)]
    errors = [error(answer(FiniteDifference(r, scheme), seed)[0], exact) for r in radii]
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - order) < 0.05


@SEEDS
@pytest.mark.parametrize(("scheme", "factor"), [("central", 4 / 3), ("forward", 2.0)])
@pytest.mark.parametrize("radius", [1e-3, 1e-2, 0.1])
def test_what_the_check_reports_bounds_the_error_on_a_smooth_loss(seed, radius, scheme, factor):
    exact = exact_of(seed)
    found, residual = answer(FiniteDifference(radius, scheme, check=True), seed)
    assert 0.9 * factor * residual < error(found, exact) < 1.1 * factor * residual


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("radius", [1e-3, 1e-2, 0.1, 0.5])
def test_on_a_network_with_kinks_no_large_error_passes_the_check(radius, scheme):
    missed = flagged = 0
    for seed in range(100, 112):
        method = FiniteDifference(radius, scheme, check=True, tolerance=0.02)
        values, (response,) = engine(method, seed, make=pooled).total_gradient("weights")
        off = error(values["log"], exact_of(seed, pooled))
        agreed = response.info.outcome is Outcome.EXPLICIT
        flagged += not agreed
        missed += agreed and off > 0.1
    assert missed == 0
    assert flagged > 0 or radius < 0.1


def test_the_default_radius_keeps_clear_of_most_kinks_in_float64():
    off = [
        error(answer(FiniteDifference(), seed, make=pooled)[0], exact_of(seed, pooled))
        for seed in range(100, 112)
    ]
    assert sorted(off)[len(off) // 2] < 1e-8
