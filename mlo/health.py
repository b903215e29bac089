"""How the problems of a run fared: responses that failed, losses that grow, ticks taken back."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlo.errors import NonfiniteError, SolveError
from mlo.guarding import Guards
from mlo.records import OUTCOMES, MoveRecord, Outcome, has_failed

MEMORY = 20
"""Moves that a running mean of losses looks back on, about."""

KEEP = 1.0 - 1.0 / MEMORY

FAILURES = frozenset(code for code in range(len(OUTCOMES)) if has_failed(code))
"""Codes of the outcomes that are failures."""

REPORTED = 1e3
"""Growth of a loss from which people are told of it.

A loss that begins near its least value and is then raised by those above grows as well, but not
for ever.
"""


@dataclasses.dataclass
class Growth:
    r"""How far the loss of a problem has risen above its best.

    With the running mean m_k = sum_i d^(k-i) f_i / sum_i d^(k-i), d = 1 - 1 / 20, over the losses
    f_1, ..., f_k of its moves, and the best b_k = min_{i <= k} m_i,

        growth = (m_k - b_k) / max(|m_1|, |b_k|)

    which is 0 where the denominator is.

    Attributes:
        total: sum_i d^(k-i) f_i.
        weight: sum_i d^(k-i).
        first: m_1; `None` before the first move.
        best: b_k.
        worst: the largest growth so far.
    """

    total: float = 0.0
    weight: float = 0.0
    first: float | None = None
    best: float = 0.0
    worst: float = 0.0

    def add(self, loss: float) -> float:
        """Take the loss of a move; return the growth after it.

        One that is not finite is left out: it grows by no number.
        """
        if not math.isfinite(loss):
            return 0.0
        self.total = KEEP * self.total + loss
        self.weight = KEEP * self.weight + 1.0
        mean = self.total / self.weight
        if self.first is None:
            self.first = self.best = mean
        self.best = min(self.best, mean)
        scale = max(abs(self.first), abs(self.best))
        growth = (mean - self.best) / scale if scale > 0 else 0.0
        self.worst = max(self.worst, growth)
        return growth


@dataclasses.dataclass(frozen=True)
class ProblemHealth:
    """How one problem fared, since its engine was built.

    Attributes:
        problem: its name; of problems that read each other and answer together, all their names.
        moves: updates that it made.
        outcomes: outcome -> how often its response, asked for by a move above, ended so.
        growth: how far its loss has risen above its best (see `Growth`); `None` where nobody
            differentiates through it.
        taken_back: ticks that were taken back because of it.
    """

    problem: str
    moves: int = 0
    outcomes: Mapping[Outcome, int] = dataclasses.field(default_factory=dict)
    growth: float | None = None
    taken_back: int = 0

    @property
    def failures(self) -> int:
        """Responses that cannot be relied on."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.failed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what went wrong; none where nothing did."""
        found = []
        if self.failures:
            kinds = ", ".join(
                f"{count} {outcome.name.lower().replace('_', ' ')}"
                for outcome, count in self.outcomes.items()
                if outcome.failed
            )
            total = sum(self.outcomes.values())
            found.append(f"{self.failures} of {total} responses of {self.problem} failed ({kinds})")
        if self.growth is not None and self.growth >= REPORTED:
            found.append(
                f"the loss of {self.problem} rose above its best by {self.growth:.3g} times its "
                "scale: it diverges"
            )
        if self.taken_back:
            many = f"{self.taken_back} ticks were" if self.taken_back > 1 else "1 tick was"
            found.append(f"{many} taken back because {self.problem} was not finite")
        return tuple(found)

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "moves": self.moves,
            "outcomes": {outcome.name.lower(): n for outcome, n in self.outcomes.items()},
            "growth": self.growth,
            "taken_back": self.taken_back,
        }


@dataclasses.dataclass(frozen=True)
class Made:
    """What a tick came to.

    Attributes:
        moves: the records of its moves; none where it was taken back.
        losses: the loss of each, read.
        codes: the outcomes of the responses of each, read.
        error: why it was taken back, where it was.
        taken_back: the same in a sentence, with what was done.
    """

    moves: tuple[MoveRecord, ...] = ()
    losses: tuple[float, ...] = ()
    codes: tuple[tuple[int, ...], ...] = ()
    error: NonfiniteError | None = None
    taken_back: str | None = None


class Health:
    """Follows all problems from tick to tick.

    Args:
        problems: their names, lowest first.
        lower: those that others differentiate through.
        guards: when to raise.
    """

    def __init__(self, problems: Sequence[str], lower: Iterable[str], guards: Guards) -> None:
        self.guards = guards
        self._moves = dict.fromkeys(problems, 0)
        self._growth = {name: Growth() for name in problems if name in set(lower)}
        self._outcomes: dict[str, dict[int, int]] = {}
        self._failed_in_row: dict[str, int] = {}
        self._taken_back: collections.Counter[str] = collections.Counter()

    def see(self, made: Made) -> None:
        """Take what a whole tick came to.

        Raises:
            SolveError: responses of a problem fail, or its loss grows, beyond what was allowed.
        """
        if made.error is not None:
            self._taken_back[made.error.problem or ""] += 1
        wrong: list[SolveError] = []
        divergence, failing = self.guards.max_divergence, self.guards.max_failed_solves
        for move, loss, codes in zip(made.moves, made.losses, made.codes, strict=True):
            self._moves[move.problem] += 1
            if move.problem in self._growth:
                growth = self._growth[move.problem].add(loss)
                if divergence is not None and growth > divergence:
                    wrong.append(_diverges(move, growth, divergence))
            for response, code in zip(move.responses, codes, strict=True):
                row = self._count(response.problem, code)
                if failing is not None and row >= failing:
                    wrong.append(_fails(move, response.problem, row, OUTCOMES[code]))
        for error in wrong:  # when everything is remembered
            raise error

    def _count(self, problem: str, code: int) -> int:
        """Count the outcome of a response; return how many in a row have failed."""
        counts = self._outcomes.setdefault(problem, {})
        counts[code] = counts.get(code, 0) + 1
        row = self._failed_in_row.get(problem, 0) + 1 if code in FAILURES else 0
        self._failed_in_row[problem] = row
        return row

    def summary(self) -> dict[str, ProblemHealth]:
        """How every problem fared so far, lowest first; those that answer together come last."""
        names = dict.fromkeys((*self._moves, *self._outcomes, *self._taken_back))
        return {
            name: ProblemHealth(
                name,
                self._moves.get(name, 0),
                {OUTCOMES[c]: n for c, n in sorted(self._outcomes.get(name, {}).items())},
                self._growth[name].worst if name in self._growth else None,
                self._taken_back[name],
            )
            for name in names
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, as plain values."""
        return {
            "moves": dict(self._moves),
            "growth": {name: dataclasses.asdict(g) for name, g in self._growth.items()},
            "outcomes": {
                name: {OUTCOMES[c].name.lower(): n for c, n in found.items()}
                for name, found in self._outcomes.items()
            },
            "failed_in_row": dict(self._failed_in_row),
            "taken_back": dict(self._taken_back),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember that instead."""
        codes = {outcome.name.lower(): code for code, outcome in enumerate(OUTCOMES)}
        self._moves = dict(state["moves"])
        self._growth = {name: Growth(**g) for name, g in state["growth"].items()}
        self._outcomes = {
            name: {codes[o]: n for o, n in found.items()}
            for name, found in state["outcomes"].items()
        }
        self._failed_in_row = dict(state["failed_in_row"])
        self._taken_back = collections.Counter(state["taken_back"])


def _fails(move: MoveRecord, problem: str, row: int, outcome: Outcome) -> SolveError:
    return SolveError(
        f"tick {move.tick}: {row} responses of problem '{problem}' in a row failed, the last in "
        f"the gradient of problem '{move.problem}': {outcome.value}. "
        f"Guards(max_failed_solves=...) allows {row - 1}",
        problem=problem,
    )


def _diverges(move: MoveRecord, growth: float, most: float) -> SolveError:
    return SolveError(
        f"tick {move.tick}: problem '{move.problem}' diverges: its loss has risen above its best "
        f"by {growth:.3g} times its scale, Guards(max_divergence=...) allows {most:g}; lower its "
        "learning rate, or clip its gradient",
        problem=move.problem,
    )
