"""The numbers of a run as plain text, for where nothing can be drawn over."""

from __future__ import annotations

from collections.abc import Iterable

from mlo.callbacks.numbers import Numbers


def in_words(numbers: Numbers) -> str:
    """All numbers in one line: losses, norms, the worst residual, metrics, what failed."""
    moved = [row for row in numbers.rows if row.loss is not None]
    parts = [
        _listed("loss", ((row.problem, row.loss) for row in moved)),
        _listed("gradient norm", ((r.problem, r.gradient_norm) for r in moved if not r.answers)),
        _listed("hypergradient norm", ((r.problem, r.gradient_norm) for r in moved if r.answers)),
        _worst_residual(numbers),
        *numbers.evaluations,
        *numbers.failures,
    ]
    return "; ".join(part for part in parts if part)


def _listed(what: str, values: Iterable[tuple[str, float | None]]) -> str:
    words = ", ".join(f"{name} {value:.4g}" for name, value in values if value is not None)
    return f"{what}: {words}" if words else ""


def _worst_residual(numbers: Numbers) -> str:
    solves = [
        (answer, row.problem)
        for row in numbers.rows
        for answer in row.answers
        if answer.residual is not None
    ]
    if not solves:
        return ""
    answer, problem = max(solves, key=lambda solve: solve[0].badness[1])
    of = f"{problem} through {answer.problem}, products {answer.products}"
    return f"worst residual {answer.residual:.1e} ({of})"
