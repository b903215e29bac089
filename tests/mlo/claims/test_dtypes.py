"""Float32 and bfloat16: the errors that their rounding explains, and nothing raised on the way."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.records import Outcome

from .claims import ALL
from .narrow import DTYPES, PROBLEMS, SEEDS, claimed, narrow, suited
from .programs import drawn, engine

FINE = {Outcome.EXPLICIT, Outcome.CONVERGED, Outcome.LIMIT}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("label", claimed())
def test_the_error_is_that_of_the_theory_and_of_the_dtype(label, problem, dtype):
    for seed in SEEDS:
        row = narrow(label, problem, seed, DTYPES[dtype])
        assert row.error <= row.allowed
        assert set(row.outcomes) <= FINE
        if row.own is not None:
            assert row.own <= row.slack
        # In bfloat16 no longer, where the eps of 1 / 128 meets a condition number of 10.
        assert row.along > 0.8 or label == "Direct"


@pytest.mark.parametrize("label", claimed())
def test_float32_is_as_near_as_float32_can_be(label):
    """Against the textbook: 1e-4 for solves, and for derivatives of moves 1e-3 for differences."""
    for problem in PROBLEMS:
        row = narrow(label, problem, SEEDS[0], torch.float32)
        exact = row.own if row.own is not None else row.error
        if not ALL[label].perhaps:
            assert exact < (2e-3 if ALL[label].radius else 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label", claimed())
def test_answers_come_in_the_dtype_of_the_upper_parameters(label, dtype):
    form = drawn("lfm-shaped", 33, DTYPES[dtype])
    claim = suited(label, DTYPES[dtype])
    values = engine(form, claim.method, away=claim.reach is not None).hypergradient(form.upper)
    assert {value.dtype for value in values.values()} == {DTYPES[dtype]}


def test_a_forward_difference_in_bfloat16_is_not_claimed_and_its_check_says_why():
    """Half the second derivative over a radius of 1 is more than the response itself."""
    assert not ALL["FD, forward"].half
    method = mlo.FiniteDifference(scheme="forward", check=True)
    for seed in SEEDS:
        form = drawn("ridge", seed, torch.bfloat16)
        made = engine(form, method, away=True)
        made.step()
        _, (response,) = made.total_gradient(form.upper)
        assert response.info.outcome is Outcome.INACCURATE
