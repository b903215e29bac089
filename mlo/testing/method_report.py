"""Verdicts on a method, and the table that shows them."""

from __future__ import annotations

import dataclasses
import enum
import io
import math

from rich.console import Console
from rich.table import Table

from mlo.records import Outcome


class Verdict(enum.Enum):
    """How an answer compares with what its method claims; the value is a sentence."""

    EXACT = "the error is within the tolerance"
    AS_REPORTED = "the error is no larger than the reported residual allows"
    APPROXIMATE = "the error is outside the tolerance, and the method says that it stopped early"
    FAILED = "the method says that it failed"
    BIASED = "the error is outside the tolerance, as declared by biased=True"
    WRONG = "the error is larger than the method claims"

    @property
    def right(self) -> bool:
        """Whether the method claimed an answer and had it."""
        return self in (Verdict.EXACT, Verdict.AS_REPORTED)


@dataclasses.dataclass(frozen=True)
class MethodRow:
    """One problem that a method was run on.

    Attributes:
        problem: name of the closed form.
        error: relative to the length of the response; NaN where there is no answer or no number.
        outcome: the worst that the method reported; `None` where it gave no answer.
        residual: the largest that it reported.
        products: products taken.
        verdict: what that is worth.
        reason: the verdict in a sentence, with numbers where something is wrong.
    """

    problem: str
    error: float
    outcome: Outcome | None
    residual: float | None
    products: int
    verdict: Verdict
    reason: str


@dataclasses.dataclass(frozen=True)
class MethodReport:
    """What `check_method` found; printed, it is a table.

    Attributes:
        method: the method, as it prints.
        rows: one for every problem.
        checked: what else was checked, in words.
        skipped: problems that the method does not serve.
        complaints: what is wrong, in sentences; empty in a report that is returned.
    """

    method: str
    rows: tuple[MethodRow, ...]
    checked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Problem -> verdict."""
        return {row.problem: row.verdict for row in self.rows}

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("problem", "error", "residual", "products", "outcome", "verdict"):
            right = heading in ("error", "residual", "products")
            table.add_column(heading, justify="right" if right else "left")
        for row in self.rows:
            outcome = "none" if row.outcome is None else row.outcome.name.lower()
            table.add_row(
                row.problem,
                _number(row.error),
                _number(row.residual),
                str(row.products),
                outcome.replace("_", " "),
                row.verdict.name.lower().replace("_", " "),
            )
        console = Console(file=io.StringIO(), width=80, color_system=None)
        console.print(self.method, markup=False, highlight=False)
        console.print(table, markup=False, highlight=False)
        for words, heading in ((self.checked, "also checked"), (self.skipped, "not run")):
            if words:
                text = f"{heading}: {', '.join(words)}"
                console.print(text, markup=False, highlight=False)
        printed: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in printed.splitlines())


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1e}"
