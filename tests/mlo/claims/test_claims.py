"""Value, sign and outcome: every method on every closed form that it claims, on fresh draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import mlo
from mlo.records import Outcome

from .claims import ALL, CLAIMS, FORMS, NESTED, RATE, Claim
from .measured import LOST, measured, right
from .nested import nested_spectrum, seeds
from .programs import answer, asked, drawn, engine, moves, norm, solved, truth

PAIRS = [(label, problem) for label, claim in ALL.items() for problem in claim.problems()]
FINE = {Outcome.EXPLICIT, Outcome.CONVERGED, Outcome.LIMIT}


@pytest.mark.parametrize(("label", "problem"), PAIRS)
def test_an_answer_is_as_near_to_the_truth_as_the_theory_says(label, problem):
    for seed in seeds(problem):
        row = measured(label, problem, seed)
        assert row.error <= row.allowed
        assert set(row.outcomes) <= FINE


@pytest.mark.parametrize(("label", "problem"), PAIRS)
def test_an_answer_is_that_of_the_textbook_for_the_same_settings(label, problem):
    """Stopped early or damped, too: every number of these methods is predicted to rounding."""
    if ALL[label].textbook is None:
        assert ALL[label].perhaps or ALL[label].reach is not None  # a bound, or exact moves
        return
    for seed in seeds(problem):
        row = measured(label, problem, seed)
        assert row.own <= row.slack < 1e-6


@pytest.mark.parametrize(("label", "problem"), PAIRS)
def test_a_response_points_the_right_way(label, problem):
    """An error of e < 1 leaves a cosine of sqrt(1 - e^2); without such a bound, on these draws."""
    for seed in seeds(problem):
        row = measured(label, problem, seed)
        least = max(0.0, 1.0 - row.allowed**2) ** 0.5
        assert row.along == 0.0 if label == "Direct" else row.along > least - 1e-12
        assert row.along > 0.0 or label == "Direct"


def test_every_method_has_a_claim_and_every_claim_a_method():
    known = mlo.methods()
    assert set(CLAIMS) == set(known)
    for name, claims in CLAIMS.items():
        assert {type(claim.method) for claim in claims} == {known[name]}
    assert len(ALL) == sum(map(len, CLAIMS.values()))


def test_every_form_of_the_standard_list_is_claimed():
    standard = mlo.testing.closed_forms()
    assert {drawn(problem, 0).name for problem in FORMS} == {form.name for form in standard}
    assert {p for p in FORMS if drawn(p, 0).nested} == set(NESTED)


@pytest.mark.parametrize("label", ALL)
def test_a_method_that_claims_no_nested_program_is_refused_or_not_linear_there(label):
    claim = ALL[label]
    if claim.nested:
        assert claim.method.differentiable
        return
    if claim.solves:
        assert not claim.linear  # stopped early, its answer is no linear map to differentiate
        return
    with pytest.raises(mlo.errors.MethodError, match="anticipates its response"):
        engine(drawn("quadratic, depth 3", 11), claim.method, away=False)


@pytest.mark.parametrize("problem", FORMS)
def test_the_truth_by_matrices_is_the_truth_of_the_form(problem):
    for seed in seeds(problem):
        form = drawn(problem, seed)
        whole, direct = right(ALL["Dense"], problem, seed)
        expected = torch.cat([t.reshape(-1) for t in form.truth.values()]).numpy()
        assert norm(whole - expected) <= 1e-12 * form.condition * norm(expected)
        partial = torch.cat([t.reshape(-1) for t in form.direct().values()]).numpy()
        assert norm(direct - partial) <= 1e-12 * norm(partial)


@pytest.mark.parametrize("problem", FORMS)
def test_gradient_descent_converges_at_the_rate_of_all_claims(problem):
    for seed in seeds(problem):
        if problem in NESTED:
            spectra = [nested_spectrum(problem, seed)]
        else:
            spectra = [node.mu for node in solved(problem, seed)[0].values()]
        assert min(mu.min() for mu in spectra) > 0
        assert max(mu.max() for mu in spectra) < 2 / RATE


@pytest.mark.parametrize("problem", ["quadratic", "lfm-shaped"])
def test_recorded_moves_are_those_that_the_truth_differentiates(problem):
    form = drawn(problem, 11)
    made = engine(form, mlo.OneStep(), away=True)
    ticks, ends = moves(problem, 11)
    for _ in ticks:
        made.step()
    for level in form.levels:
        own = dict(made.problems[level.name].module.named_parameters())
        for name, value in ends[level.name].items():
            torch.testing.assert_close(own[name].detach(), value, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("label", [label for label, claim in ALL.items() if claim.solves])
@pytest.mark.parametrize("problem", ["quadratic", "quadratic, condition 1e4", "logistic"])
def test_a_residual_that_is_reported_is_the_residual(label, problem):
    """Of (H + damping I) u = v, with the u that the answer is made of, by the textbook."""
    claim: Claim = ALL[label]
    (info,) = answer(drawn(problem, 11), claim).infos
    if claim.textbook is None:
        return
    ((own, H),) = solved(problem, 11)[1].items()
    v = truth(problem, 11, None)[2][own]
    damping = getattr(claim.method, "damping", 0.0)
    rest = v - H @ claim.textbook(H, v) - damping * claim.textbook(H, v)
    rounding = LOST * np.finfo(float).eps * claim.amplified(np.linalg.eigvalsh(H))
    assert abs(float(info.residual) - norm(rest) / norm(v)) <= rounding + claim.stop
    converged = float(info.residual) <= claim.method.tolerance
    assert info.outcome is (Outcome.CONVERGED if converged else Outcome.LIMIT)


@pytest.mark.parametrize("label", ALL)
def test_a_second_call_answers_the_same(label):
    """A state is no staleness: asked again where nothing has moved, nothing has changed."""
    form, claim = drawn("lfm-shaped", 12), ALL[label]
    made = engine(form, claim.method, away=claim.reach is not None)
    made.step()
    first, second = asked(made, form.upper), asked(made, form.upper)
    np.testing.assert_array_equal(first.gradient, second.gradient)


@pytest.mark.parametrize("label", [label for label, claim in ALL.items() if claim.reach is None])
@pytest.mark.parametrize("problem", ["ridge", "lfm-shaped", "row of 2 diamonds"])
def test_ticks_at_a_solution_change_no_answer(label, problem):
    form = drawn(problem, 13)
    made = engine(form, ALL[label].method, away=False)
    before = asked(made, form.upper)
    for _ in range(3):
        made.step()
    after = asked(made, form.upper)
    assert norm(after.gradient - before.gradient) <= 1e-11 * norm(before.gradient)


@pytest.mark.parametrize("label", [label for label, claim in ALL.items() if claim.solves])
def test_a_problem_that_has_moved_on_is_solved_anew(label):
    """What is kept at a point (a sketch, factors, a step) does not outlive it."""
    form, claim = drawn("lfm-shaped", 13), ALL[label]
    used = engine(form, claim.method, away=True)
    for _ in range(3):
        used.step()
    levels = []
    for level in form.levels:
        own = used.problems[level.name].module.named_parameters()
        levels.append(dataclasses.replace(level, start={k: p.detach().clone() for k, p in own}))
    fresh = engine(dataclasses.replace(form, levels=tuple(levels)), claim.method, away=True)
    expected = asked(fresh, form.upper).gradient
    assert norm(asked(used, form.upper).gradient - expected) <= 1e-12 * norm(expected)
    before = asked(engine(form, claim.method, away=True), form.upper).gradient
    assert norm(before - expected) > 1e-2 * norm(expected)
