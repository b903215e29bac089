"""The shipped preconditioners: what they are, what they cost, where they serve."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import mlo
from mlo import ConjugateGradient, Neumann, Outcome
from mlo.errors import ConfigurationError, MethodError
from mlo.hypergradients import Diagonal, OptimizerDiagonal, make_method
from mlo.hypergradients.preconditioners import SHIPPED

from .quadratics import answer, condition_of, joined, relative, split, symmetric


def applied(preconditioner, hessian, damping=0.0):
    """M^{-1}, as a matrix."""
    with torch.no_grad():
        ready = preconditioner.prepare(condition_of(hessian), damping)
    unit = torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.stack([joined(ready.apply(split(e))) for e in unit], dim=1)


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("damping", [0.0, 2.5])
def test_of_a_diagonal_hessian_the_estimate_is_exact_and_one_iteration_enough(probes, damping):
    d = torch.tensor([0.1, 2.0, 30.0, 4.0, 0.5])
    method = ConjugateGradient(preconditioner=Diagonal(probes=probes), damping=damping)
    v = torch.randn(5)
    found, info = answer(method, torch.diag(d), v)
    torch.testing.assert_close(found, v / (d + damping), rtol=1e-14, atol=0)
    assert info.outcome is Outcome.CONVERGED
    # The probes, one iteration, one for the residual.
    assert int(info.products) == probes + 2


def test_it_takes_the_size_of_a_curvature_and_not_its_sign():
    d = torch.tensor([-2.0, 3.0, 0.5, -0.25])
    expected = torch.diag(1 / (d.abs() + 0.5))
    torch.testing.assert_close(applied(Diagonal(probes=1), torch.diag(d), 0.5), expected)


def test_the_estimate_has_the_mean_and_the_variance_of_the_paper():
    hessian, _ = symmetric([4.0, 5.0, 5.5, 6.0, 7.0, 9.0])
    draws = 3000
    with torch.no_grad():
        found = torch.stack(
            [
                1 / applied(Diagonal(probes=2, seed=seed, floor=1e-12), hessian).diagonal()
                for seed in range(draws)
            ]
        )
    off = (hessian - torch.diag(hessian.diagonal())).square().sum(1) / 2
    # The diagonal is so large that the sign, which is dropped, never changes.
    assert (hessian.abs().sum(1) < 2 * hessian.diagonal()).all()
    assert ((found.mean(0) - hessian.diagonal()).abs() < 4 * (off / draws).sqrt()).all()
    torch.testing.assert_close(found.var(0), off, rtol=0.25, atol=0)


def test_entries_near_zero_are_raised_and_zeros_are_a_multiple_of_the_identity():
    d = torch.tensor([0.0, 1e-9, 1.0, 3.0])
    found = applied(Diagonal(probes=1, floor=0.01), torch.diag(d)).diagonal()
    low = 1 / (0.01 * float(d.mean()))
    torch.testing.assert_close(found, torch.tensor([low, low, 1.0, 1 / 3]))
    found = applied(Diagonal(), torch.zeros(4, 4))
    assert found[0, 0] > 0
    assert torch.equal(found, found[0, 0] * torch.eye(4))


def test_scales_that_differ_cost_iterations_without_it():
    scale = torch.diag(torch.logspace(-1.5, 1.5, 40))
    core, _ = symmetric(torch.linspace(1.0, 2.0, 40).tolist())
    hessian, v = scale @ core @ scale, torch.randn(40)
    bare = ConjugateGradient(iterations=400, tolerance=1e-8)
    method = dataclasses.replace(bare, preconditioner=Diagonal(probes=8))
    _, without = answer(bare, hessian, v)
    found, info = answer(method, hessian, v)
    assert relative(found, torch.linalg.solve(hessian, v)) < 1e-5
    inverse = applied(Diagonal(probes=8), hessian)
    values = torch.linalg.eigvals(inverse @ hessian).real
    root = float(values.max() / values.min()) ** 0.5
    rate = (root - 1) / (root + 1)
    bound = math.log(2 * float(torch.linalg.cond(hessian)) ** 0.5 / 1e-8) / -math.log(rate)
    assert int(info.products) - 9 <= bound
    assert 3 * int(info.products) < int(without.products)


@pytest.mark.parametrize("kind", [ConjugateGradient, Neumann])
def test_one_estimate_serves_all_solves_at_a_point(kind):
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    settings = {"alpha": 0.1} if kind is Neumann else {}
    method = kind(preconditioner=Diagonal(probes=3), **settings)
    condition = condition_of(hessian)
    with torch.no_grad():
        first = method.vjp(condition, split(torch.ones(4)), None).info
        second = method.vjp(condition, split(torch.ones(4)), None).info
    assert int(first.products) == int(second.products) + 3


def test_the_signs_come_from_a_generator_of_their_own():
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    state = torch.get_rng_state()
    first, again, other = (applied(Diagonal(probes=2, seed=s), hessian) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("preconditioner", ["diagonal", Diagonal(probes=2)])
def test_zero_nan_and_single_precision(preconditioner):
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0, 5.0])
    method = ConjugateGradient(preconditioner=preconditioner, tolerance=1e-5)
    found, info = answer(method, hessian, torch.zeros(5))
    assert torch.equal(found, torch.zeros(5))
    assert info.outcome is Outcome.ZERO
    found, info = answer(method, hessian.float(), torch.ones(5).float())
    assert found.dtype is torch.float32
    assert info.outcome is Outcome.CONVERGED
    for bad in (torch.full((5,), float("nan")), torch.ones(5)):
        broken = hessian.clone()
        broken[0, 0] = float("nan")
        _, info = answer(method, broken if bad.isfinite().all() else hessian, bad)
        assert info.outcome is Outcome.NONFINITE


def test_a_direction_without_curvature_does_no_harm_where_nothing_asks_for_it():
    d = torch.tensor([0.0, 1.0, 20.0, 300.0])
    v = torch.tensor([0.0, 1.0, 2.0, 3.0])
    found, info = answer(ConjugateGradient(preconditioner="diagonal"), torch.diag(d), v)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.1, 0.01]))
    assert info.outcome is Outcome.CONVERGED


def test_configurations_name_them():
    assert sorted(SHIPPED) == ["diagonal", "nystrom", "optimizer"]
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    v = torch.ones(4)
    named, _ = answer(make_method("conjugate-gradient", preconditioner="diagonal"), hessian, v)
    given, _ = answer(ConjugateGradient(preconditioner=Diagonal()), hessian, v)
    assert torch.equal(named, given)


@pytest.mark.parametrize("method", [ConjugateGradient, Neumann])
@pytest.mark.parametrize("wrong", ["diagnal", 3, Diagonal])
def test_a_preconditioner_that_is_none_is_refused(method, wrong):
    with pytest.raises(ConfigurationError, match="'diagonal', 'nystrom', 'optimizer'") as caught:
        method(preconditioner=wrong)
    assert (wrong == "diagnal") == ("did you mean 'diagonal'?" in str(caught.value))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Diagonal, {"probes": 0}),
        (Diagonal, {"seed": -1}),
        (Diagonal, {"floor": 0.0}),
        (OptimizerDiagonal, {"floor": float("nan")}),
    ],
)
def test_a_setting_out_of_range_is_named(kind, settings):
    (name,) = settings
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}\({name}=\.\.\.\)"):
        kind(**settings)


def test_the_costs_that_the_graph_shows_are_an_upper_bound_that_is_met():
    hessian, _ = symmetric(torch.linspace(1.0, 90.0, 12).tolist())
    for method in (
        ConjugateGradient(iterations=3, preconditioner=Diagonal(probes=5)),
        Neumann(terms=4, alpha=0.01, preconditioner=Diagonal(probes=5)),
        Neumann(terms=4, alpha="auto", power_iterations=6),
        Neumann(terms=1, alpha=0.01),
    ):
        _, info = answer(method, hessian, torch.ones(12))
        assert int(info.products) == method.work(12)
        assert dataclasses.replace(method, warm_start=True).work(12) == method.work(12) + 1


def test_the_optimizer_cannot_be_asked_where_there_is_none():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(MethodError, match="second_moments"):
        mlo.solution(
            torch.ones(3),
            lambda w, c: (w - c).square().sum(),
            x,
            ConjugateGradient(preconditioner="optimizer"),
        )
