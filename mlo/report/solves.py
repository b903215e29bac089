"""How the hypergradients of a run went, in numbers."""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping

from mlo.recorded import RecordedRun
from mlo.records import Outcome

Through = tuple[str, str, str, str]
"""Stage, problem that moved, problem it differentiated through, method."""


@dataclasses.dataclass
class Solves:
    """All responses of one problem in the moves of another, over the seeds of a stage.

    Attributes:
        solves: how many there were, for each move.
        products: how many products they took, for each move.
        residuals: relative residuals, where one is defined.
        outcomes: outcome -> moves that ended so.
    """

    solves: list[int] = dataclasses.field(default_factory=list)
    products: list[int] = dataclasses.field(default_factory=list)
    residuals: list[float] = dataclasses.field(default_factory=list)
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def shares(self) -> dict[str, float]:
        """Outcome -> share of the moves, the most frequent first."""
        total = self.outcomes.total()
        return {name: count / total for name, count in self.outcomes.most_common()}

    @property
    def median(self) -> float | None:
        """The median residual; a NaN counts as larger than all."""
        ordered = [math.inf if math.isnan(r) else r for r in self.residuals]
        return statistics.median(ordered) if ordered else None

    @property
    def worst(self) -> float | None:
        """The largest residual; NaN where one is."""
        if any(map(math.isnan, self.residuals)):
            return math.nan
        return max(self.residuals, default=None)


def solves(run: RecordedRun) -> Mapping[Through, Solves]:
    """Read how all hypergradients of a run went."""
    found: dict[Through, Solves] = {}
    for stage in run.stages:
        for tick in stage.ticks:
            for move in tick["moves"]:
                for response in move["responses"]:
                    key = (stage.name, move["problem"], response["problem"], response["method"])
                    entry = found.setdefault(key, Solves())
                    entry.solves.append(response["solves"])
                    entry.products.append(response["products"])
                    entry.outcomes[response["outcome"]] += 1
                    if response["residual"] is not None:
                        entry.residuals.append(float(response["residual"]))
    return found


def failed(outcome: str) -> bool:
    """Whether an outcome, by its recorded name, is a failure."""
    return Outcome[outcome.upper()].failed


def sentence(outcome: str) -> str:
    """What an outcome, by its recorded name, means."""
    return Outcome[outcome.upper()].value
