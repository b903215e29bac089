"""Numbers about hypergradients, against those put in."""

from __future__ import annotations

import math

import pytest

from mlo.records import Outcome
from mlo.report.solves import failed, sentence, solves

from .made import made, move, response, start, tick

OUTCOMES = ["converged", "converged", "limit", "diverged"]
RESIDUALS = [0.1, 0.4, 0.2, 30.0]


def lines(residuals=RESIDUALS):
    return [
        start(),
        *(
            tick(t, move("high", 1.0, 1.0, {}, [response(r, o, products=t + 1, solves=2)]))
            for t, (o, r) in enumerate(zip(OUTCOMES, residuals, strict=True))
        ),
    ]


def test_shares_means_and_residuals_are_over_all_seeds(tmp_path):
    found = solves(made(tmp_path / "run", {"s": {0: lines(), 1: lines()}}))
    (key,) = found
    assert key == ("s", "high", "low", "Neumann")
    of = found[key]
    assert of.shares == {"converged": 0.5, "limit": 0.25, "diverged": 0.25}
    assert (of.solves, of.products) == ([2] * 8, [1, 2, 3, 4] * 2)
    assert of.median == pytest.approx(0.3)
    assert of.worst == 30.0


def test_a_residual_that_is_nan_is_the_worst(tmp_path):
    run = made(tmp_path / "run", {"s": {0: lines([math.nan, 0.1, 0.2, math.inf])}})
    (of,) = solves(run).values()
    assert math.isnan(of.worst)
    assert of.median == math.inf


def test_no_residual_is_none(tmp_path):
    (of,) = solves(made(tmp_path / "run", {"s": {0: lines([None] * 4)}})).values()
    assert (of.median, of.worst) == (None, None)


@pytest.mark.parametrize("outcome", Outcome)
def test_recorded_names_of_outcomes_are_understood(outcome):
    assert failed(outcome.name.lower()) == outcome.failed
    assert sentence(outcome.name.lower()) == outcome.value
