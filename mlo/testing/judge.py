"""How one method is asked and judged in one check."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from mlo.errors import MethodError
from mlo.hypergradients import Hypergradient
from mlo.notes import noting
from mlo.testing.forms import ClosedForm
from mlo.testing.forms.form import Named
from mlo.testing.method_report import MethodRow, Verdict
from mlo.testing.verdicts import judged
from mlo.testing.watched import Answer, Watched

Right = tuple[Named, Named]
"""The right answer, and its direct part."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """A method, and what is asked of it: see `check_method`."""

    method: Hypergradient
    rate: float
    tolerance: float
    biased: bool

    @property
    def moves(self) -> bool:
        """Whether the method differentiates recorded moves."""
        return "moves" in self.method.needs

    def row(self, form: ClosedForm, ask: Callable[[Watched], tuple[Answer, Right]]) -> MethodRow:
        """Ask, and judge the answer; a broken seam is a wrong answer too.

        Args:
            form: what it is asked.
            ask: asks the method, as it is watched; returns its answer and the right one.
        """
        watched = Watched(self.method)
        try:
            with noting(f"in check_method({self.method!r}), on '{form.name}'"):
                answer, right = ask(watched)
        except MethodError as error:
            return MethodRow(form.name, math.nan, None, None, 0, Verdict.WRONG, str(error))
        row = self.verdict(form, answer, right)
        if watched.complaints:
            reason = "; ".join(watched.complaints)
            return dataclasses.replace(row, verdict=Verdict.WRONG, reason=reason)
        return row

    def verdict(self, form: ClosedForm, answer: Answer, right: Right) -> MethodRow:
        """What an answer is worth."""
        tolerance, biased = self.tolerance, self.biased
        return judged(form, self.method, answer, right, tolerance=tolerance, biased=biased)

    def right(self, form: ClosedForm) -> Right:
        """The right answer to a fresh program."""
        if self.moves:
            return form.one_step(self.rate), form.direct(self.rate)
        return form.truth, form.direct()
