"""`check_method`: any hypergradient method against programs whose answers are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from mlo.errors import CheckError, ConfigurationError, MethodError
from mlo.hypergradients import Hypergradient
from mlo.notes import noting
from mlo.testing.forms import ClosedForm, closed_forms, quadratic, saddle
from mlo.testing.forms.form import OptimizerFactory
from mlo.testing.judge import Judge, Right
from mlo.testing.later_calls import rows_after_moves, state_complaints, two_rates
from mlo.testing.method_report import MethodReport, MethodRow, Verdict
from mlo.testing.seam_checks import CHECKED, seam_complaints
from mlo.testing.watched import Answer, Watched, ask

HINT = (
    "Errors are relative to the response: 1 is that of leaving it out, 2 that of a wrong sign. If "
    "the method promises no better, pass tolerance=. If it answers something else on purpose (it "
    "leaves out the response, or damps the system), pass biased=True."
)


def check_method(
    method: Hypergradient,
    *,
    problems: Iterable[ClosedForm] | None = None,
    tolerance: float = 1e-6,
    rate: float = 0.1,
    biased: bool = False,
) -> MethodReport:
    r"""Run a method through programs whose answers are known, and hold it to what it claims.

    Every lower problem uses the method and SGD with the learning rate `rate`. A method that
    differentiates recorded moves (``"moves" in method.needs``) stands away from the solution and
    must give the derivative of the step that is made there; any other stands at the solution and
    must give the gradient through the solution. What it must give it by depends on its outcome:

    - `EXPLICIT`, `CONVERGED`: the error is at most `tolerance`, plus what a reported residual
      explains: ``2 * form.sensitivity * residual``, and never more than half of the response.
      `CONVERGED` goes with a residual within the method's own `tolerance`, where it has one.
    - `LIMIT`: any error, if a reported residual explains it. But on a Hessian of I / rate, where
      one step is exact, there is no reason to stop early.
    - a failure: any number. But a method that has no right answer to anything fails the check.

    Errors are relative to the response: 1 is the error of leaving it out.

    On a Hessian that is indefinite the same holds; on a singular one, where there is no answer,
    nothing may be claimed. A method of recorded moves is also asked after real moves of SGD with
    momentum and of Adam, each with two parameter groups, and must give the derivative of the last
    of them (of the last `method.reach`, where it has that attribute); one that uses the learning
    rates is asked where two of them differ.

    Beside values it checks shapes, dtypes and devices, zero and linearity in the cotangent, that
    parameters which nothing uses get zeros, that states are plain, that a call with a carried state
    is no worse than the first, and that a state from another point misleads nobody.

    Args:
        method: the method, with settings under which it should get there.
        problems: closed forms to run instead of `closed_forms()`; nested ones are run by
            differentiable methods only, and cost a solver about the square of a staged one.
        tolerance: error of an answer that counts as exact; a method that takes differences needs
            what these promise.
        rate: learning rate of the lower problems; curvatures go up to about 2.
        biased: the method answers something else on purpose (it drops the response, or damps the
            system): errors are reported and not judged, everything else is.

    Returns:
        A row for every problem; print it for a table.

    Raises:
        CheckError: an answer is worse than the method claims, or the seam is not kept.
        ConfigurationError: an argument is of the wrong kind.
    """
    _check_arguments(method, tolerance, rate)
    chosen = list(closed_forms() if problems is None else problems)
    moves = "moves" in method.needs
    served = [f for f in chosen if not f.nested or (method.differentiable and not moves)]
    if not served:
        raise ConfigurationError(
            f"check_method(problems=...): {type(method).__name__} serves none of them; give a "
            "staged form, such as mlo.testing.ridge()"
        )

    judge = Judge(method, rate, tolerance, biased)
    rows = [_row(form, judge) for form in served]
    answered = any(r.verdict.right for r in rows)
    if moves:
        rows += rows_after_moves(judge)
    elif not biased:
        bad = [_row(form, judge) for form in _bad_hessians()]
        rows = [*_easy_rows(judge), *rows, *bad]
        answered = answered or rows[0].verdict.right
    complaints = [f"on '{r.problem}': {r.reason}" for r in rows if r.verdict is Verdict.WRONG]
    if not complaints and not answered and not biased:
        complaints.append(_nothing_right(rows))
    complaints += _seam(judge, rows)
    report = MethodReport(
        repr(method),
        tuple(rows),
        CHECKED,
        tuple(f.name for f in chosen if f not in served),
        tuple(complaints),
    )
    if complaints:
        raise CheckError(_message(method, report))
    return report


def _row(form: ClosedForm, judge: Judge, optimizer: OptimizerFactory | None = None) -> MethodRow:
    """A fresh program, at its solution or where a move is made."""

    def asked(watched: Watched) -> tuple[Answer, Right]:
        answer = ask(form, watched, rate=judge.rate, away=judge.moves, optimizer=optimizer)
        return answer, judge.right(form)

    return judge.row(form, asked)


def _easy_rows(judge: Judge) -> Iterator[MethodRow]:
    """Where the Hessian is the identity over the learning rates, of which there may be two.

    There every solver gets there in one step, so stopping early is wrong; one that goes by these
    rates must not fail either.
    """
    yield _no_excuse(_row(_easiest(judge.rate), judge), Verdict.APPROXIMATE)
    if "learning_rate" in judge.method.needs:
        form, optimizer = two_rates(judge.rate)
        row = _row(form, judge, optimizer)
        yield _no_excuse(row, Verdict.APPROXIMATE, Verdict.FAILED)


def _easiest(rate: float) -> ClosedForm:
    form = quadratic(condition=1.0, scale=1.0 / rate)
    return dataclasses.replace(form, name="Hessian I / rate")


def _bad_hessians() -> Iterator[ClosedForm]:
    yield saddle(name="indefinite Hessian")
    yield saddle((1.0, 0.6, 0.0), name="singular Hessian")


def _no_excuse(row: MethodRow, *excuses: Verdict) -> MethodRow:
    if row.verdict not in excuses or row.outcome is None:
        return row
    reason = (
        f"it reports {row.outcome.name} with an error of {row.error:.1e}, where the Hessian is the "
        "identity over the learning rate and one step is exact; expected to get there: give it "
        "more work, or a rate= that suits it"
    )
    return dataclasses.replace(row, verdict=Verdict.WRONG, reason=reason)


def _nothing_right(rows: list[MethodRow]) -> str:
    outcomes = sorted({row.outcome.name for row in rows if row.outcome is not None})
    return (
        f"it has a right answer to none of {len(rows)} problems (it reports {', '.join(outcomes)}; "
        f"smallest error {min((r.error for r in rows if r.error >= 0), default=math.nan):.1e}); "
        "expected at least one: choose settings under which it gets there, or pass biased=True"
    )


def _seam(judge: Judge, rows: list[MethodRow]) -> list[str]:
    if any(row.outcome is None for row in rows):
        return []  # the engine has refused its answers already
    method = judge.method
    try:
        with noting(f"in check_method({method!r}), on its seam"):
            found = list(seam_complaints(method, rate=judge.rate, tolerance=judge.tolerance))
            return list(dict.fromkeys([*found, *state_complaints(judge)]))
    except MethodError as error:
        return [str(error)]


def _message(method: Hypergradient, report: MethodReport) -> str:
    lines = [f"hypergradient method {type(method).__name__} failed its check:"]
    shown = report.complaints[:4]
    lines += [f"- {complaint}" for complaint in shown]
    if len(report.complaints) > len(shown):
        lines.append(f"- and {len(report.complaints) - len(shown)} more")
    return "\n".join([*lines, "", HINT, "", str(report)])


def _check_arguments(method: object, tolerance: float, rate: float) -> None:
    if not isinstance(method, Hypergradient):
        raise ConfigurationError(
            "check_method(method) takes an instance of a Hypergradient, such as "
            f"mlo.Neumann(terms=10), got {method!r}"
        )
    for name, value in (("tolerance", tolerance), ("rate", rate)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ConfigurationError(
                f"check_method({name}=...) must be a positive number, got {value!r}"
            )
