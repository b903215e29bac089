"""`check_program`: every total gradient of a program, lowest problem first."""

from __future__ import annotations

import itertools

import pytest
import torch

import mlo
from mlo.errors import CheckError, DeclarationError, LossError, StationarityError
from mlo.testing import HypergradientCheck, check_hypergradient, check_program

from ..test_nothing_moves import state
from .checked import UPPER, chain, lfm, staged
from .test_checks_that_fail import ScaledSolve

EXACT = {"z": mlo.Dense(), "y": mlo.Dense()}


def test_every_problem_to_which_others_answer_is_checked_lowest_first():
    found = list(check_program(chain(EXACT)))
    assert [check.problem for check in found] == ["y", "x"]
    assert found == [check_hypergradient(chain(EXACT), name) for name in ("y", "x")]


def test_staged_and_plain_problems_have_nothing_to_check():
    assert [check.problem for check in check_program(lfm())] == [UPPER]
    alone = mlo.Problem(
        "alone",
        params={"w": torch.ones(2)},
        loss=lambda alone: alone["w"].square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    assert list(check_program(mlo.Engine([alone]))) == []


def test_a_failure_is_handed_over_and_the_next_problem_is_checked_all_the_same():
    engine = chain({"z": ScaledSolve(factor=1.2), "y": mlo.Dense()})
    lower, upper = check_program(engine)
    for error, name in ((lower, "y"), (upper, "x")):
        assert isinstance(error, CheckError)
        assert f"'{name}'" in str(error)
        assert error.problem == "z"
    engine = chain({"z": mlo.Dense(), "y": ScaledSolve(factor=1.2)})
    lower, upper = check_program(engine)
    assert isinstance(lower, HypergradientCheck)
    assert isinstance(upper, CheckError)


def test_a_problem_that_cannot_be_solved_is_a_failure_too():
    losses = {"a": lambda a, top: (a["w"] * top["w"]).sum()}
    engine = staged({"a": mlo.Dense(damping=1.0), "b": mlo.Dense()}, losses)
    (error,) = check_program(engine)
    assert isinstance(error, StationarityError)


def test_settings_are_those_of_one_check():
    few = chain({"z": mlo.Neumann(terms=3, alpha=0.3), "y": mlo.Dense()})
    assert all(isinstance(found, CheckError) for found in check_program(few))
    loose = list(check_program(few, bias=10.0, losses=False, count=1))
    assert all(isinstance(found, HypergradientCheck) for found in loose)
    assert [(c.directions, c.losses) for c in loose] == [(1, ()), (1, ())]


def test_what_is_no_finding_is_raised():
    with pytest.raises(DeclarationError, match="against="):
        list(check_program(lfm(), against="nothing"))
    with pytest.raises(TypeError, match="tolerence"):
        list(check_program(lfm(), tolerence=1.0))

    broken = {"x": lambda y, z: y["w"]}
    with pytest.raises(LossError, match="'x'"):
        list(check_program(engine_without_a_dry_run(broken)))


def engine_without_a_dry_run(losses: dict) -> mlo.Engine:
    """With a loss that is found to be none only when it is called."""
    right = chain(EXACT)
    problems = [
        mlo.Problem(
            name,
            module=p.module,
            loss=losses.get(name, p.loss),
            optimizer=p.optimizer,
            hypergradient=p.hypergradient,
        )
        for name, p in right.problems.items()
    ]
    return mlo.Engine(problems, dry_run=False)


def test_it_checks_one_after_the_other_and_moves_nothing_in_between():
    engine = chain(EXACT)
    before = state(engine)
    checks = check_program(engine)
    (first,) = itertools.islice(checks, 1)
    assert first.problem == "y"
    assert state(engine) == before
    engine.step()  # the next one is taken where the engine stands then
    (second,) = checks
    assert second == check_hypergradient(engine, "x")
