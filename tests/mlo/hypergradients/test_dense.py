"""The materialized solve, with its failures by name."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo import Dense, Outcome

from .quadratics import answer, condition_of, relative, split, symmetric


@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 3.0, 4.0, 5.0], [1e-3, 1.0, -2.0, 50.0, 1e3]])
def test_it_solves_definite_and_indefinite_systems(eigenvalues):
    hessian, _ = symmetric(eigenvalues)
    v = torch.randn(5)
    found, info = answer(Dense(tolerance=1e-9), hessian, v)
    # Rounding times a condition number of up to 1e6.
    assert relative(found, torch.linalg.solve(hessian, v)) < 1e-10
    assert info.outcome is Outcome.CONVERGED
    torch.testing.assert_close(
        info.residual, (v - hessian @ found).norm() / v.norm(), rtol=1.0, atol=1e-12
    )
    assert int(info.products) == 6


SINGULAR = {
    "zero": lambda: torch.zeros(5, 5),
    "a zero row": lambda: torch.diag(torch.tensor([1.0, 2.0, 0.0, 3.0, 4.0])),
    "rank one": lambda: torch.ones(5, 5),
    "up to rounding": lambda: symmetric([1.0, 2.0, 3.0, 4.0, 0.0])[0],
}


@pytest.mark.parametrize("case", SINGULAR)
def test_a_singular_hessian_gives_nan_and_its_name(case):
    hessian = SINGULAR[case]()
    # In the range of the matrix too: one of many solutions is not the answer either.
    for v in (torch.randn(5), hessian @ torch.randn(5)):
        if v.any():
            found, info = answer(Dense(), hessian, v)
            assert found.isnan().all()
            assert info.outcome is Outcome.SINGULAR


def test_a_singular_hessian_reaches_the_hypergradient_and_the_record():
    low = mlo.Problem(
        "low",
        params={"w": torch.ones(2)},
        loss=lambda low, top: (low["w"].sum() - top["x"]).square(),
        optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
        hypergradient=Dense(),
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.tensor(0.5)},
        loss=lambda low: low["w"].square().sum(),
        optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
    )
    with pytest.raises(mlo.errors.NonfiniteError, match=r"'low' .Dense.*singular; add damping"):
        mlo.Engine([low, top]).step()
    engine = mlo.Engine([low, top], guards=mlo.Guards(on_nonfinite="ignore"))
    with pytest.warns(mlo.errors.HypergradientWarning, match=r"'top'.*'low' by Dense.*singular"):
        assert engine.hypergradient("top")["x"].isnan()
    (response,) = engine.step().moves[-1].responses
    assert (response.problem, response.method) == ("low", "Dense")
    assert response.info.outcome is Outcome.SINGULAR
    assert "add damping" in response.info.outcome.value


def test_more_parameters_than_the_limit_are_refused_with_a_way_out():
    condition = condition_of(torch.eye(6))
    with pytest.raises(mlo.errors.MethodError, match=r"'quadratic'.*6 x 6.*limit=5") as caught:
        Dense(limit=5).vjp(condition, split(torch.ones(6)), None)
    assert "ConjugateGradient" in str(caught.value)
    assert caught.value.problem == "quadratic"
    assert torch.equal(answer(Dense(limit=6), torch.eye(6), torch.ones(6))[0], torch.ones(6))
