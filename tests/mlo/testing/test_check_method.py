"""`check_method`: shipped methods pass with truthful verdicts, wrong ones are caught by name."""

from __future__ import annotations

import math

import pytest
import torch

import mlo
from mlo.errors import CheckError, ConfigurationError
from mlo.records import Outcome
from mlo.testing import (
    Verdict,
    chain,
    check_method,
    closed_forms,
    diamond,
    lfm_shaped,
    logistic,
    quadratic,
    ridge,
    trilevel,
)
from mlo.testing.verdicts import judged
from mlo.testing.watched import Answer, answer_of, ask

from .wrong_methods import Raising, reporting

ALL = [form.name for form in closed_forms()]
STAGED = [form.name for form in closed_forms() if not form.nested]
MOVED = ["moves of SGD", "moves of Adam"]
EASY, RATES = "Hessian I / rate", "Hessian 1 / rates"
INDEFINITE, SINGULAR = "indefinite Hessian", "singular Hessian"
ILL = "quadratic, cond. 1e+04"
EXACT, AS_REPORTED, APPROXIMATE = Verdict.EXACT, Verdict.AS_REPORTED, Verdict.APPROXIMATE
FAILED, BIASED = Verdict.FAILED, Verdict.BIASED


def of(names, verdict):
    return dict.fromkeys(names, verdict)


def test_written_out_hessians_are_exact_and_a_singular_one_is_named():
    report = check_method(mlo.Dense())
    assert report.verdicts == of([EASY, *ALL, INDEFINITE], EXACT) | {SINGULAR: FAILED}
    assert {row.outcome for row in report.rows[:-1]} == {Outcome.CONVERGED}
    assert report.rows[-1].outcome is Outcome.SINGULAR
    # Rounding of the solves, times a condition number of 1e4.
    assert all(row.error < 1e-11 for row in report.rows[:-1])


def test_conjugate_gradients_are_exact_and_see_negative_curvature():
    report = check_method(mlo.ConjugateGradient())
    assert report.verdicts == of([EASY, *ALL], EXACT) | of([INDEFINITE, SINGULAR], FAILED)
    indefinite, singular = (row.outcome for row in report.rows[-2:])
    assert indefinite is Outcome.NEGATIVE_CURVATURE
    assert singular in (Outcome.NEGATIVE_CURVATURE, Outcome.SINGULAR)


def test_a_loose_tolerance_is_as_near_as_reported():
    report = check_method(mlo.ConjugateGradient(tolerance=1e-2))
    assert set(report.verdicts.values()) == {EXACT, AS_REPORTED, FAILED}
    loose = [row for row in report.rows if row.verdict is AS_REPORTED]
    assert len(loose) >= 3
    assert all(1e-6 < row.error < 0.5 and row.residual <= 1e-2 for row in loose)


def test_few_iterations_are_approximate():
    report = check_method(mlo.ConjugateGradient(iterations=2))
    assert report.verdicts[EASY] is EXACT
    assert {report.verdicts[name] for name in ALL} == {APPROXIMATE}


@pytest.mark.parametrize("method", [mlo.Neumann(), mlo.Neumann(terms=3)])
def test_a_short_series_is_approximate_except_where_one_term_is_enough(method):
    report = check_method(method)
    assert report.verdicts == of([*ALL, INDEFINITE, SINGULAR], APPROXIMATE) | of(
        [EASY, RATES], EXACT
    )
    assert {row.outcome for row in report.rows[2:]} == {Outcome.LIMIT}


def test_a_long_series_is_exact_where_it_converges():
    staged = [form for form in closed_forms() if not form.nested]
    report = check_method(mlo.Neumann(terms=200), problems=staged, rate=0.3)
    slow = {"quadratic, depth 2", ILL}
    assert {report.verdicts[name] for name in STAGED if name not in slow} == {EXACT}
    assert {report.verdicts[name] for name in slow} == {APPROXIMATE}
    assert report.verdicts[INDEFINITE] is FAILED


def test_a_series_with_too_long_a_step_fails_and_says_so():
    report = check_method(mlo.Neumann(terms=60, alpha=0.5), problems=[ridge()])
    assert report.verdicts[EASY] is FAILED  # the largest eigenvalue there is 10
    assert report.verdicts["ridge"] is EXACT


def test_a_recorded_move_is_exact():
    report = check_method(mlo.OneStep())
    assert report.verdicts == of([*STAGED, *MOVED], EXACT)
    assert report.skipped == ("quadratic, depth 3", "quartic, depth 3")
    assert max(row.error for row in report.rows) < 1e-14


@pytest.mark.parametrize("radius", [1e-3, 1e-4])
def test_a_difference_over_a_short_radius_is_exact(radius):
    report = check_method(mlo.FiniteDifference(radius=radius))
    assert report.verdicts == of([*STAGED, *MOVED], EXACT)


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        (mlo.FiniteDifference(radius=0.01), 1e-4),
        (mlo.FiniteDifference(radius=0.01, scheme="forward"), 5e-2),
    ],
)
def test_a_difference_is_as_exact_as_its_radius_promises(method, tolerance):
    assert check_method(method, tolerance=tolerance).verdicts == of([*STAGED, *MOVED], EXACT)
    with pytest.raises(CheckError, match=r"'lfm-shaped': it reports EXPLICIT, but its error is"):
        check_method(method)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_a_difference_that_checks_itself_is_as_near_as_it_reports(scheme):
    report = check_method(mlo.FiniteDifference(0.01, scheme, check=True))
    assert report.verdicts["lfm-shaped"] is AS_REPORTED
    assert report.verdicts["chain of 3"] is EXACT
    assert set(report.verdicts.values()) == {EXACT, AS_REPORTED}


def test_no_response_is_declared_to_be_biased_by_all_of_it():
    report = check_method(mlo.Direct(), biased=True)
    assert report.verdicts == of(ALL, BIASED)
    assert all(math.isclose(row.error, 1.0, rel_tol=1e-12) for row in report.rows)
    with pytest.raises(CheckError, match=r"Direct failed.*\n- on .*EXPLICIT, but its error is 1.0"):
        check_method(mlo.Direct())


def test_damping_is_declared_to_be_biased():
    damped = mlo.ConjugateGradient(damping=0.1)
    assert check_method(damped, biased=True).verdicts == of(ALL, BIASED)
    with pytest.raises(CheckError, match=r"CONVERGED .* but its error is"):
        check_method(damped)


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("method", [mlo.OneStep(), mlo.Neumann(), mlo.ConjugateGradient()])
def test_the_rate_is_a_setting(method, rate):
    verdicts = check_method(method, rate=rate).verdicts
    assert verdicts["ridge" if EASY not in verdicts else EASY] is EXACT


def test_a_series_of_its_own_step_is_exact_at_the_rate_that_suits_it():
    slow = mlo.Neumann(terms=10, alpha=0.05)
    assert check_method(slow, rate=0.05).verdicts[EASY] is EXACT
    with pytest.raises(CheckError, match=r"'Hessian I / rate': it reports LIMIT.* rate= that"):
        check_method(slow)


def test_an_error_of_the_method_itself_comes_through_with_a_note():
    with pytest.raises(ZeroDivisionError) as caught:
        check_method(Raising())
    assert caught.value.__notes__[0] == "in check_method(Raising()), on 'quadratic, depth 2'"


@pytest.mark.parametrize("seed", range(4))
def test_an_error_never_exceeds_what_the_sensitivity_allows(seed):
    staged = [
        quadratic(seed=seed, size=8),
        quadratic(seed=seed, size=8, condition=1e4),
        ridge(seed=seed, size=8),
        ridge(seed=seed, size=8, per_coordinate=True),
        logistic(seed=seed, size=8),
        lfm_shaped(seed=seed, size=6, condition=100.0),
        chain(4, seed=seed, size=6, condition=30.0),
        diamond(2, seed=seed, size=6, condition=30.0),
    ]
    nested = [quadratic(3, seed=seed), quadratic(3, seed=seed, condition=100.0)]
    nested.append(trilevel(seed=seed))
    largest = 0.0
    for form in [*staged, *nested]:
        for tolerance in (0.3, 1e-2, 1e-4):
            for iterations in (1, 3, 100):
                method = mlo.ConjugateGradient(iterations=iterations, tolerance=tolerance)
                answer = ask(form, method, rate=0.1)
                row = judged(
                    form, method, answer, (form.truth, form.direct()), tolerance=1e-9, biased=False
                )
                assert row.verdict is not Verdict.WRONG or tolerance == 0.3, row
                bound = form.sensitivity * max(answer.residual, 1e-12)
                # Exact where one problem is below; to first order with several, hence the 1 %.
                assert row.error < 1.01 * bound, row
                largest = max(largest, row.error / bound)
    assert largest > 0.5, "a bound that is never nearly reached allows too much"


def test_a_claim_of_half_the_response_is_the_most_that_a_residual_excuses():
    form = ridge()
    half = {k: form.direct()[k] + 0.45 * (form.truth[k] - form.direct()[k]) for k in form.truth}
    for outcome, verdict in ((Outcome.CONVERGED, Verdict.WRONG), (Outcome.LIMIT, APPROXIMATE)):
        row = judged(
            form,
            mlo.OneStep(),
            Answer(half, outcome, 0.9, 1),
            (form.truth, form.direct()),
            tolerance=1e-6,
            biased=False,
        )
        assert math.isclose(row.error, 0.55)
        assert row.verdict is verdict


@pytest.mark.parametrize("outcome", [Outcome.CONVERGED, Outcome.EXPLICIT])
@pytest.mark.parametrize(("times", "verdict"), [(1.9, AS_REPORTED), (2.1, Verdict.WRONG)])
def test_a_claim_is_allowed_twice_its_residual_times_the_sensitivity(times, verdict, outcome):
    form, residual = ridge(), 1e-3
    error = times * form.sensitivity * residual
    found = {k: t + error * (t - form.direct()[k]) for k, t in form.truth.items()}
    row = judged(
        form,
        mlo.OneStep(),
        Answer(found, outcome, residual, 1),
        (form.truth, form.direct()),
        tolerance=1e-9,
        biased=False,
    )
    assert math.isclose(row.error, error, rel_tol=1e-9)
    assert row.verdict is verdict


def test_who_stops_early_need_not_be_linear():
    """The directions of conjugate gradients depend on the cotangent."""
    short = reporting(mlo.ConjugateGradient(iterations=2), Outcome.LIMIT)
    assert check_method(short).verdicts["lfm-shaped"] is APPROXIMATE


def test_the_records_behind_a_hypergradient_are_those_of_the_engine():
    form = lfm_shaped()
    engine = form.engine(mlo.ConjugateGradient(iterations=2))
    answer = answer_of(engine, form.upper)
    found = engine.hypergradient(form.upper)
    assert all(torch.equal(found[k], answer.values[k]) for k in found)
    (upper,) = (m for m in engine.step().moves if m.problem == form.upper)
    assert answer.products == sum(int(r.info.products) for r in upper.responses) == 6
    assert answer.outcome is Outcome.LIMIT
    assert answer.residual > 1e-6


@pytest.mark.parametrize(
    "method", [mlo.ConjugateGradient(), mlo.Neumann(), mlo.Dense(), mlo.OneStep()]
)
def test_a_report_prints_as_a_table_of_80_columns(method):
    report = check_method(method)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    header = next(i for i, line in enumerate(lines) if line.startswith("problem "))
    assert " ".join(lines[:header]) == repr(method)
    assert lines[header].split() == [
        "problem",
        "error",
        "residual",
        "products",
        "outcome",
        "verdict",
    ]
    for row, line in zip(report.rows, lines[header + 1 :], strict=False):
        assert line.startswith(row.problem)
        assert line.endswith(row.verdict.name.lower().replace("_", " "))
    assert any(line.startswith("also checked: ") for line in lines)


def test_a_check_needs_no_default_dtype_and_disturbs_no_random_state():
    torch.set_default_dtype(torch.float32)
    state = torch.get_rng_state()
    assert check_method(mlo.ConjugateGradient()).verdicts["ridge"] is EXACT
    assert check_method(mlo.FiniteDifference(radius=1e-3)).verdicts["lfm-shaped"] is EXACT
    assert torch.equal(torch.get_rng_state(), state)


def test_chosen_problems_are_run_and_no_others():
    report = check_method(mlo.Dense(), problems=[ridge(size=6)])
    assert list(report.verdicts) == [EASY, "ridge", INDEFINITE, SINGULAR]
    assert report.skipped == ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_method(mlo.Dense), "takes an instance of a Hypergradient"),
        (lambda: check_method("dense"), "takes an instance of a Hypergradient"),
        (lambda: check_method(mlo.Dense(), tolerance=0.0), "tolerance=...) must be a positive"),
        (lambda: check_method(mlo.Dense(), rate=math.nan), "rate=...) must be a positive"),
        (lambda: check_method(mlo.OneStep(), problems=[quadratic(3)]), "serves none of them"),
        (lambda: check_method(mlo.OneStep(), problems=[]), "serves none of them"),
    ],
)
def test_wrong_arguments_are_typed_errors(call, words):
    with pytest.raises(ConfigurationError, match=words.replace("(", r"\(").replace(")", r"\)")):
        call()


def test_every_verdict_is_a_sentence():
    assert all(len(verdict.value.split()) > 4 for verdict in Verdict)
    assert {verdict for verdict in Verdict if verdict.right} == {EXACT, AS_REPORTED}
