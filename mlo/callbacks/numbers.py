"""The latest numbers of a run, read from the device: one value, which each board draws its way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from mlo.records import MoveRecord, ResponseRecord


@dataclasses.dataclass(frozen=True)
class Answer:
    """How the response of one problem went.

    Attributes:
        problem: whose response.
        products: Hessian products taken.
        residual: relative residual; None where none is defined.
        failure: what went wrong, in a sentence; empty where nothing did.
    """

    problem: str
    products: int
    residual: float | None
    failure: str = ""

    @property
    def badness(self) -> tuple[bool, float]:
        """Orders answers: failures above all, then larger residuals, NaN the largest."""
        residual = -1.0 if self.residual is None else self.residual
        return bool(self.failure), math.inf if math.isnan(residual) else residual


@dataclasses.dataclass(frozen=True)
class Row:
    """The last move of one problem.

    Attributes:
        problem: its name.
        loss: None before its first move.
        gradient_norm: that of its total gradient, which is a hypergradient where there are answers.
        answers: the responses that its gradient went through.
    """

    problem: str
    loss: float | None = None
    gradient_norm: float | None = None
    answers: tuple[Answer, ...] = ()


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What is known of a run.

    Attributes:
        rows: one a problem, the highest level first.
        metrics: evaluation -> metric -> latest value.
        lines: what callbacks say.
    """

    rows: tuple[Row, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for every response that failed in the last move of a problem."""
        return tuple(
            f"FAILED: hypergradient of {row.problem} through {answer.problem}: {answer.failure}"
            for row in self.rows
            for answer in row.answers
            if answer.failure
        )

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The metrics of each evaluation in words."""
        return tuple(
            f"{name}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())
            for name, values in self.metrics.items()
        )


def read_row(problem: str, move: MoveRecord | None) -> Row:
    """Read the last move of a problem, if it has made one; this waits for the device."""
    if move is None:
        return Row(problem)
    answers = tuple(map(_read_answer, move.responses))
    return Row(problem, float(move.loss), float(move.gradient_norm), answers)


def _read_answer(response: ResponseRecord) -> Answer:
    info = response.info
    residual = None if info.residual is None else float(info.residual)
    failure = info.outcome.value if info.outcome.failed else ""
    return Answer(response.problem, int(info.products), residual, failure)
