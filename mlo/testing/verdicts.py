"""What a method's answer is worth, given what it claims.

Errors are relative to the response: the distance to the right answer over the length of that
answer without its direct part. So an error of 1 is what leaving out the response would give.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlo.hypergradients import Hypergradient
from mlo.records import Outcome
from mlo.testing.forms import ClosedForm
from mlo.testing.forms.form import Named
from mlo.testing.method_report import MethodRow, Verdict
from mlo.testing.watched import Answer


def judged(
    form: ClosedForm,
    method: Hypergradient,
    answer: Answer,
    expected: tuple[Named, Named],
    *,
    tolerance: float,
    biased: bool,
) -> MethodRow:
    """Compare an answer with the right one, and with what it claims.

    Args:
        form: the problem.
        method: whose answer it is.
        answer: the answer.
        expected: the right answer, and its direct part.
        tolerance: error up to which an answer counts as exact.
        biased: whether the method is declared to answer something else.
    """
    error = response_error(answer.values, *expected)
    allowed = tolerance + _allowance(form, answer)
    verdict = _verdict(form, answer, error, tolerance, allowed, biased=biased)
    if _overclaims(method, answer):
        verdict = Verdict.WRONG
    wrong = verdict is Verdict.WRONG
    reason = _why(form, method, answer, error, allowed) if wrong else verdict.value
    return MethodRow(
        form.name, error, answer.outcome, answer.residual, answer.products, verdict, reason
    )


def response_error(found: Named, right: Named, direct: Named) -> float:
    """``|found - right| / |right - direct|``: 1 for an answer that leaves out the response."""
    size = (_flat(right) - _flat(direct)).norm()
    return float((_flat(found) - _flat(right)).norm() / size)


def _allowance(form: ClosedForm, answer: Answer) -> float:
    """How far a residual lets an answer be off.

    See `ClosedForm.sensitivity` for the bound. It holds to first order, and a finite difference
    that compares itself with one of half the radius sees at least half of its error: hence 2. Half
    of the response is the most that an answer may miss, unless it says that it stopped early.
    """
    if answer.residual is None:
        return 0.0
    allowed = 2.0 * form.sensitivity * answer.residual
    return allowed if answer.outcome is Outcome.LIMIT else min(allowed, 0.5)


def _verdict(
    form: ClosedForm,
    answer: Answer,
    error: float,
    tolerance: float,
    allowed: float,
    *,
    biased: bool,
) -> Verdict:
    if answer.outcome.failed:
        return Verdict.FAILED
    if error <= tolerance:
        return Verdict.EXACT
    if biased and math.isfinite(error):
        return Verdict.BIASED
    if answer.outcome is Outcome.LIMIT:
        # Where a residual is reported it must account for the error.
        sound = answer.residual is None or error <= allowed or _unanswerable(form)
        return Verdict.APPROXIMATE if sound else Verdict.WRONG
    return Verdict.AS_REPORTED if error <= allowed else Verdict.WRONG


def _overclaims(method: Hypergradient, answer: Answer) -> bool:
    """Whether it reports convergence and a residual above its own tolerance."""
    own = getattr(method, "tolerance", None)
    if answer.outcome is not Outcome.CONVERGED or answer.residual is None or own is None:
        return False
    return not answer.residual <= own


def _why(
    form: ClosedForm, method: Hypergradient, answer: Answer, error: float, allowed: float
) -> str:
    """What an answer claims, and how far off it is."""
    reported = f"it reports {answer.outcome.name}"
    if answer.residual is not None:
        reported += f" with a residual of {answer.residual:.1e}"
    if _overclaims(method, answer):
        return f"{reported}; expected at most its own tolerance={method.tolerance:g}"  # type: ignore[attr-defined]
    if _unanswerable(form):
        return f"{reported}; expected a failure, since the Hessian is singular: there is no answer"
    if not all(bool(t.isfinite().all()) for t in answer.values.values()):
        return f"{reported}, but there is a NaN or an infinity in its answer; expected a number"
    return f"{reported}, but its error is {error:.1e}; expected at most {allowed:.1e}"


def _unanswerable(form: ClosedForm) -> bool:
    return any(bool(t.isnan().any()) for t in form.truth.values())


def _flat(values: Named) -> Tensor:
    return torch.cat([t.reshape(-1) for t in values.values()])
