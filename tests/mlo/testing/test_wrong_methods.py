"""Wrong methods are caught by `check_method`, and its message says what is wrong."""

from __future__ import annotations

import dataclasses
import math

import pytest

import mlo
from mlo.errors import CheckError
from mlo.records import Outcome, code_of
from mlo.testing import check_method

from .forgetful_methods import (
    ClaimsTwo,
    FirstGroup,
    FirstRate,
    FirstStep,
    NoOptimizer,
    RemembersItsAnswer,
    RemembersItsFactors,
    TiredByCalls,
    Uncorrected,
    WornOutByCalls,
    WornOutByMoves,
)
from .wrong_methods import (
    ClaimsItsTerms,
    Clipping,
    Conjugate,
    Detaching,
    NeedsTheGraph,
    Quadratic,
    RemembersItsAdjoint,
    Spectral,
    Stale,
    Truncated,
    answering,
    changed,
    multiplied,
    narrow,
    not_a_number,
    ones_for_none,
    ones_for_zero,
    remembering,
    reporting,
    transposed,
    unmeasured_learner,
    with_graph,
    without_entry,
)

CG = mlo.ConjugateGradient()


WRONG = {
    "sign, one step": (multiplied(mlo.OneStep(), -1.0), r"EXPLICIT, but its error is 2\.0e\+00"),
    "twice, one step": (multiplied(mlo.OneStep(), 2.0), r"EXPLICIT, but its error is 1\.0e\+00"),
    "1 % off, one step": (multiplied(mlo.OneStep(), 1.01), r"its error is 1\.0e-02"),
    "1 % off, differences": (
        multiplied(mlo.FiniteDifference(check=True), 1.01),
        r"its error is 1\.0e-02",
    ),
    "sign, CG": (multiplied(CG, -1.0), r"CONVERGED .*, but its error is 2\.0e\+00"),
    "twice, CG": (multiplied(CG, 2.0), r"CONVERGED .*, but its error is 1\.0e\+00"),
    "sign of the adjoint, CG": (changed(CG, -1.0), "'Hessian I / rate': it reports LIMIT"),
    "twice the adjoint, CG": (changed(CG, 2.0), "'Hessian I / rate': it reports LIMIT"),
    "half the adjoint, CG": (changed(CG, 0.5), "'Hessian I / rate': it reports LIMIT"),
    "sign, Neumann": (
        multiplied(mlo.Neumann(terms=40), -1.0),
        r"CONVERGED .*, but its error is 2\.0e\+00",
    ),
    "twice, short Neumann": (multiplied(mlo.Neumann(), 2.0), "Hessian I / rate': it reports CONV"),
    "sign of the adjoint, Neumann": (
        changed(mlo.Neumann(terms=40, alpha=0.1), -1.0),
        "a right answer to none of 13 problems",
    ),
    "twice the adjoint, Neumann": (
        changed(mlo.Neumann(terms=40), 2.0),
        "'Hessian I / rate': it reports LIMIT",
    ),
    "half the adjoint, Neumann": (
        changed(mlo.Neumann(terms=40), 0.5),
        "'Hessian I / rate': it reports LIMIT",
    ),
    "an iterate late": (Conjugate(late=True), "'Hessian I / rate': it reports LIMIT"),
    "a stale residual": (Stale(), r"CONVERGED with a residual of .*, but its error is"),
    "a truncation that claims": (Truncated(), "it reports CONVERGED, but its error is"),
    "a truncation that lies": (
        Truncated(residual=1e-7),
        "CONVERGED with a residual of 1.0e-07, but its error is",
    ),
    "a limit that lies": (
        Truncated(code=code_of(Outcome.LIMIT), residual=1e-3),
        "LIMIT with a residual of 1.0e-03, but its error is",
    ),
    "a measured residual that disagrees": (
        ClaimsItsTerms(),
        "CONVERGED with a residual of .*expected at most its own tolerance=1e-06",
    ),
    "a residual that is none": (
        reporting(mlo.Dense(), Outcome.CONVERGED, math.nan),
        "CONVERGED with a residual of nan; expected at most its own",
    ),
    "a residual to hide behind": (
        reporting(multiplied(mlo.OneStep(), -1.0), Outcome.EXPLICIT, 100.0),
        r"EXPLICIT with a residual of 1.0e\+02, but its error is 2",
    ),
    "zero, where it is not": (reporting(mlo.Direct(), Outcome.ZERO), "ZERO, but its error is 1"),
    "absolute eigenvalues": (Spectral(), "'indefinite Hessian': it reports CONVERGED, but"),
    "a pseudo-inverse": (
        Spectral("pseudo"),
        "'singular Hessian': it reports CONVERGED; expected a failure, .* no answer",
    ),
    "a nested answer without its graph": (Detaching(), "'quadratic, depth 3': it reports CONV"),
    "a nested answer without third derivatives": (
        Quadratic(),
        "'quartic, depth 3': it reports CONVERGED .* but its error is",
    ),
    "a residual that is none, in one of two problems": (
        answering(mlo.Dense(), unmeasured_learner),
        "'lfm-shaped': it reports CONVERGED with a residual of nan",
    ),
    "an entry too few": (answering(mlo.OneStep(), without_entry), "of the shape of each tensor"),
    "other shapes": (answering(mlo.OneStep(), transposed), "of the shape of each tensor"),
    "no result": (answering(mlo.OneStep(), lambda c, r: r.grads), "must return a Result"),
    "another dtype": (answering(mlo.Dense(), narrow), r"float32 on cpu for a context tensor of"),
    "gradients with a graph": (answering(mlo.OneStep(), with_graph), "gradients that carry a gra"),
    "NaN": (answering(mlo.OneStep(), not_a_number), "EXPLICIT, but there is a NaN"),
    "NaN, converged": (answering(mlo.Dense(), not_a_number), "CONVERGED .*there is a NaN"),
    "nothing but failures": (
        reporting(answering(mlo.OneStep(), not_a_number), Outcome.NONFINITE),
        "right answer to none of 10 problems .it reports NONFINITE; smallest error nan",
    ),
    "a cut cotangent": (Clipping(), r"vjp\(2 v\) must be 2 vjp\(v\), but they differ by"),
    "ones for zero": (answering(mlo.Dense(), ones_for_zero), "zero cotangent must be zero, got"),
    "a zero that fails": (
        answering(
            mlo.Dense(),
            lambda c, r: (
                dataclasses.replace(r, info=mlo.Info(code=code_of(Outcome.NONFINITE)))
                if r.info.outcome is Outcome.ZERO
                else r
            ),
        ),
        "zero cotangent must be no failure, but it reports NONFINITE",
    ),
    "ones for nothing": (
        answering(mlo.Dense(), ones_for_none),
        r"no loss uses must have .* \[2\.0, 2",
    ),
    "the graph of the move alone": (NeedsTheGraph(), r"answer as without it .*retain=False"),
    "init with a graph": (remembering("init", "graph"), r"init\(\) has a state whose tensors car"),
    "init with a leaf": (remembering("init", "leaf"), r"init\(\) has a state whose tensors carry"),
    "vjp with a graph": (remembering("vjp", "graph"), r"Result of vjp\(\) has a state whose"),
    "vjp with an object": (remembering("vjp", "object"), r"vjp\(\) has a state with a object in"),
    "observe with a graph": (remembering("observe", "graph"), r"observe\(\) has a state whose"),
    "a nested state": (RemembersItsAdjoint(), r"'quadratic, depth 3': .* state whose tensors car"),
    "the last answer": (RemembersItsAnswer(), r"another point on 'lfm-shaped': it reports CONVERG"),
    "factors of another point": (RemembersItsFactors(), r"another point .* reports CONVERGED, but"),
    "worn out by moves": (WornOutByMoves(), "nothing changed .* CONVERGED .* but its error is"),
    "worn out by calls": (WornOutByCalls(), "its last call .* CONVERGED .* but its error is"),
    "tired by calls": (TiredByCalls(), r"its outcome LIMIT, where the first call was right"),
    "the rate of the first group, Neumann": (
        FirstRate(),
        "'Hessian 1 / rates': it reports DIVERGED .* one step is exact",
    ),
    "the rate of the first group, one step": (FirstGroup(), "'moves of SGD': .* its error is"),
    "no optimizer": (NoOptimizer(), "'moves of Adam': it reports EXPLICIT, but its error is"),
    "the derivative of a first step": (FirstStep(), "'moves of SGD': it reports EXPLICIT, but"),
    "one update for two": (ClaimsTwo(), "'moves of SGD': it reports EXPLICIT, but its error"),
    "Adam without corrections": (Uncorrected(), "'moves of Adam': it reports EXPLICIT, but its"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_method_is_caught_and_the_message_says_what_is_wrong(name):
    method, words = WRONG[name]
    with pytest.raises(CheckError, match=words) as caught:
        check_method(method)
    first = str(caught.value).splitlines()[0]
    assert first == f"hypergradient method {type(method).__name__} failed its check:"
    assert "verdict" in str(caught.value), "the table is part of the message"


ELSEWHERE = "with the state of another point on 'lfm-shaped'"
AGAIN = "called again with the state of its last call"

# What is wrong with these shows in these places and nowhere else.
ONLY = {
    "absolute eigenvalues": ["on 'indefinite Hessian'"],
    "a pseudo-inverse": ["on 'singular Hessian'"],
    "a nested answer without its graph": ["on 'quadratic, depth 3'", "on 'quartic, depth 3'"],
    "a nested answer without third derivatives": ["on 'quartic, depth 3'"],
    "a nested state": ["on 'quadratic, depth 3'", "on 'quartic, depth 3'"],
    "a cut cotangent": ["for problem 'relearner'"] * 2 + ["for problem 'learner'"],
    "ones for zero": ["for problem 'relearner'", "for problem 'learner'"],
    "a zero that fails": ["for problem 'relearner'", "for problem 'learner'"],
    "ones for nothing": ["an upper parameter that no loss uses must have the gradient zero"],
    "the graph of the move alone": [
        "on 'moves of SGD'",
        "on 'moves of Adam'",
        "with the graph of the move it must answer as without it",
    ],
    "the last answer": [ELSEWHERE, AGAIN],
    "factors of another point": [ELSEWHERE, AGAIN],
    "worn out by moves": ["after two ticks in which nothing changed on 'lfm-shaped'"],
    "worn out by calls": ["after two ticks in which nothing changed", ELSEWHERE, AGAIN],
    "tired by calls": ["after two ticks in which nothing changed", AGAIN],
    "the rate of the first group, Neumann": ["on 'Hessian 1 / rates'"],
    "the rate of the first group, one step": ["on 'moves of SGD'", "on 'moves of Adam'"],
    "no optimizer": ["on 'moves of SGD'", "on 'moves of Adam'"],
    "the derivative of a first step": ["on 'moves of SGD'"],
    "one update for two": ["on 'moves of SGD'", "on 'moves of Adam'"],
    "Adam without corrections": ["on 'moves of Adam'"],
    "observe with a graph": [
        "on 'moves of SGD': observe() has a state whose tensors carry a graph",
        "on 'moves of Adam': observe() has a state whose tensors carry a graph",
        "observe() has a state whose tensors carry a graph",
    ],
}


@pytest.mark.parametrize("name", ONLY)
def test_a_check_is_the_only_one_to_catch_its_mistake(name):
    with pytest.raises(CheckError) as caught:
        check_method(WRONG[name][0])
    complaints = [line for line in str(caught.value).splitlines() if line.startswith("- ")]
    for complaint, start in zip(complaints, ONLY[name], strict=True):
        assert complaint.startswith(f"- {start}")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (answering(mlo.Direct(), ones_for_zero), "zero cotangent must be zero"),
        (answering(mlo.ConjugateGradient(damping=0.1), not_a_number), "there is a NaN"),
        (answering(mlo.ConjugateGradient(damping=0.1), without_entry), "of the shape of each"),
        (ClaimsItsTerms(), "expected at most its own tolerance"),
    ],
)
def test_a_declared_bias_excuses_the_error_and_nothing_else(method, words):
    with pytest.raises(CheckError, match=words):
        check_method(method, biased=True)
