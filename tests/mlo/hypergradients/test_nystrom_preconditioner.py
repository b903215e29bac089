"""`NystromSketch` as a preconditioner: the formula, what it saves, where it may not serve."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import mlo
from mlo import ConjugateGradient, Neumann, Outcome
from mlo.hypergradients import NystromSketch
from mlo.hypergradients.sketch import directions
from mlo.testing import Verdict, check_method, lfm_shaped, quadratic

from .quadratics import answer, condition_of, joined, relative, split, symmetric


def applied(preconditioner, hessian, damping=0.0):
    """M^{-1}, as a matrix."""
    with torch.no_grad():
        ready = preconditioner.prepare(condition_of(hessian), damping)
    unit = torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.stack([joined(ready.apply(split(e))) for e in unit], dim=1)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_of_full_rank_it_is_a_multiple_of_the_inverse(damping):
    hessian, _ = symmetric([1.0, 2.0, 5.0, 20.0, 100.0])
    found = applied(NystromSketch(rank=9), hessian, damping)
    exact = torch.linalg.inv(hessian + damping * torch.eye(5))
    torch.testing.assert_close(found, (1 + damping) * exact, rtol=1e-10, atol=1e-12)
    method = ConjugateGradient(preconditioner=NystromSketch(rank=9), damping=damping)
    v = torch.randn(5)
    adjoint, info = answer(method, hessian, v)
    assert relative(adjoint, exact @ v) < 1e-10
    # Five directions, one iteration, one for the residual.
    assert int(info.products) == 7 < method.work(5)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_it_is_the_formula_of_the_paper(damping):
    hessian, _ = symmetric([*torch.logspace(-2, 2, 12).tolist()])
    like = split(torch.zeros(12))
    x = directions(like, 4, 3)
    y = hessian @ x
    values, vectors = torch.linalg.eigh(y @ torch.linalg.inv(x.T @ y) @ y.T)
    values, vectors = values[-4:], vectors[:, -4:]
    low = values.min() + damping
    expected = vectors @ torch.diag(low / (values + damping)) @ vectors.T
    expected = expected + torch.eye(12) - vectors @ vectors.T
    found = applied(NystromSketch(rank=4, seed=3), hessian, damping)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "eigenvalues", [[-5.0, 3.0, 1.0, -0.5, 2.0], [4.0, 1.0, 0, 0, 0], [0.0] * 5]
)
def test_it_is_positive_definite_whatever_the_hessian(eigenvalues):
    for rank in (1, 3, 5):
        hessian = symmetric([float(e) for e in eigenvalues])[0]
        found = applied(NystromSketch(rank=rank), hessian)
        torch.testing.assert_close(found, found.T)
        values = torch.linalg.eigvalsh(found)
        assert values.min() > 0
        assert values.max() <= 1 + 1e-9


def test_few_stiff_directions_cost_nothing_more():
    eigenvalues = [*torch.linspace(1.0, 2.0, 50).tolist(), *torch.logspace(3, 6, 10).tolist()]
    hessian, _ = symmetric(eigenvalues)
    v = torch.randn(60)
    bare = ConjugateGradient(iterations=500, tolerance=1e-8, damping=0.1)
    method = dataclasses.replace(bare, preconditioner=NystromSketch(rank=20))
    _, without = answer(bare, hessian, v)
    found, info = answer(method, hessian, v)
    assert relative(found, torch.linalg.solve(hessian + 0.1 * torch.eye(60), v)) < 1e-7
    assert info.outcome is Outcome.CONVERGED
    assert int(info.products) < 0.7 * int(without.products)


def test_zero_nan_and_single_precision():
    hessian, _ = symmetric([1.0, 2.0, 3.0, 4.0, 5.0])
    method = ConjugateGradient(preconditioner="nystrom", tolerance=1e-5)
    assert answer(method, hessian, torch.zeros(5))[1].outcome is Outcome.ZERO
    found, info = answer(method, hessian.float(), torch.ones(5).float())
    assert found.dtype is torch.float32
    assert info.outcome is Outcome.CONVERGED
    hessian[1, 1] = float("nan")
    assert answer(method, hessian, torch.ones(5))[1].outcome is Outcome.NONFINITE


def test_it_keeps_what_check_method_asks_for():
    forms = [lfm_shaped(), quadratic(depth=2)]
    method = ConjugateGradient(iterations=60, preconditioner=NystromSketch(rank=3))
    report = check_method(method, problems=forms)
    assert {report.verdicts[f.name] for f in forms} == {Verdict.EXACT}


def test_a_series_with_it_asks_for_a_symmetric_hessian():
    assert Neumann(preconditioner="nystrom").symmetric
    hessian, _ = symmetric([1.0, 2.0, 4.0, 50.0, 900.0])
    method = Neumann(terms=120, alpha="auto", preconditioner=NystromSketch(rank=3))
    found, info = answer(method, hessian, torch.ones(5))
    assert info.outcome is Outcome.CONVERGED
    assert relative(found, torch.linalg.solve(hessian, torch.ones(5))) < 1e-5


def test_problems_that_read_each_other_have_no_symmetric_hessian_for_it():
    method = Neumann(alpha=0.1, preconditioner="nystrom")
    settings = {"optimizer": lambda p: torch.optim.SGD(p, 0.1), "hypergradient": method}
    a, b = (
        mlo.Problem(
            name,
            params={"w": torch.ones(2)},
            loss=lambda own, other, top: (own["w"] - other["w"] - top["w"]).square().sum(),
            reads=(name, other, "top"),
            **settings,
        )
        for name, other in (("a", "b"), ("b", "a"))
    )
    top = mlo.Problem("top", params={"w": torch.ones(2)}, loss=lambda a: a["w"].sum(), **settings)
    with pytest.raises(mlo.errors.MethodError, match="Neumann takes to be symmetric"):
        mlo.Engine([[a, b], top])


@pytest.mark.parametrize("settings", [{"rank": 0}, {"seed": 0.5}])
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"NystromSketch\({name}=\.\.\.\)"):
        NystromSketch(**settings)
