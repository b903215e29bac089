"""What the engine tells the world: immutable records of moves, ticks, evaluations and runs.

Numbers stay 0-dimensional tensors on their device until somebody reads them, so that keeping a
record never forces the host to wait for the device.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.errors import ConfigurationError


class Outcome(enum.Enum):
    """How a hypergradient computation ended; the value is the sentence shown to the user."""

    EXPLICIT = "no linear system was solved"
    CONVERGED = "the residual is within the tolerance"
    LIMIT = "the iteration limit was reached before the tolerance; allow more iterations"
    ZERO = "the right-hand side was zero, and so is the adjoint"
    NEGATIVE_CURVATURE = "negative curvature: the Hessian is not positive definite; add damping"
    DIVERGED = "the residual exceeds the right-hand side; decrease alpha or the learning rate"
    SINGULAR = "the Hessian is singular; add damping or a regularizer"
    INACCURATE = "two finite-difference radii disagree; change the radius or use exact products"
    NONFINITE = "a NaN or an infinity appeared"

    @property
    def failed(self) -> bool:
        """Whether the hypergradient cannot be relied on; stopping at a limit is no failure."""
        return self not in (Outcome.EXPLICIT, Outcome.CONVERGED, Outcome.LIMIT, Outcome.ZERO)


OUTCOMES = tuple(Outcome)


def code_of(outcome: Outcome) -> int:
    """The index of an outcome in `OUTCOMES`."""
    return OUTCOMES.index(outcome)


@dataclasses.dataclass(frozen=True)
class Info:
    """How one vector-inverse-Hessian product went.

    Attributes:
        products: Hessian products (or gradient evaluations, for finite differences) taken.
        residual: relative residual ``|v - H u| / |v|``, 0-dim, or `None` where none is defined.
        code: index into `OUTCOMES`; a 0-dim tensor where it was decided on the device.
    """

    products: int | Tensor = 0
    residual: Tensor | None = None
    code: int | Tensor = 0

    @property
    def outcome(self) -> Outcome:
        """The outcome (reading it waits for the device)."""
        return OUTCOMES[int(self.code)]

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers and words."""
        residual = None if self.residual is None else float(self.residual)
        return {
            "products": int(self.products),
            "residual": residual,
            "outcome": self.outcome.name.lower(),
        }


@dataclasses.dataclass(frozen=True)
class ResponseRecord:
    """One response that a move differentiated through: whose, by which method, and how it went."""

    problem: str
    method: str
    info: Info


@dataclasses.dataclass(frozen=True)
class MoveRecord:
    """One real move of one problem.

    Attributes:
        problem: name of the problem that moved.
        tick: the tick in which it moved, counted from 0.
        loss: its loss where it moved from, 0-dim.
        metrics: what the loss returned beside its value.
        gradient_norm: Euclidean norm of its total gradient before clipping, 0-dim.
        learning_rate: learning rate of the optimizer's first parameter group during the move.
        responses: the responses that its gradient went through.
    """

    problem: str
    tick: int
    loss: Tensor
    metrics: Mapping[str, Tensor | float]
    gradient_norm: Tensor
    learning_rate: float
    responses: tuple[ResponseRecord, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers, ready for JSON."""
        return {
            "problem": self.problem,
            "loss": float(self.loss),
            "gradient_norm": float(self.gradient_norm),
            "learning_rate": self.learning_rate,
            "metrics": plain_metrics(self.metrics),
            "responses": [
                {"problem": r.problem, "method": r.method, **r.info.plain()} for r in self.responses
            ],
        }


@dataclasses.dataclass(frozen=True)
class TickRecord:
    """All moves of one tick, in the order in which they were made, and the seconds they took."""

    tick: int
    moves: tuple[MoveRecord, ...]
    seconds: float

    @property
    def losses(self) -> dict[str, float]:
        """Problem name -> loss of its last move in this tick."""
        return {move.problem: float(move.loss) for move in self.moves}

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers, ready for JSON."""
        moves = [move.plain() for move in self.moves]
        return {"kind": "tick", "tick": self.tick, "seconds": self.seconds, "moves": moves}


@dataclasses.dataclass(frozen=True)
class EvaluationRecord:
    """What one evaluation returned after `tick` (counted from 0; -1 is before the first)."""

    tick: int
    name: str
    metrics: Mapping[str, float]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers, ready for JSON."""
        return {"kind": "evaluation", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class StartRecord:
    """What is known when a run starts: ticks to go, problems from the lowest, the drawn graph."""

    ticks: int
    problems: tuple[str, ...]
    graph: str

    def plain(self) -> dict[str, Any]:
        """The record, ready for JSON."""
        return {"kind": "start", **dataclasses.asdict(self)}


class Status(enum.Enum):
    """How a run ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        status: how it ended.
        reason: the same in a sentence.
        ticks: ticks made in this run.
        seconds: wall-clock time of the run.
        records: tick records, every `record_every`-th one.
        evaluations: evaluation records, in order.
    """

    status: Status
    reason: str
    ticks: int
    seconds: float
    records: tuple[TickRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]

    def last(self, name: str) -> dict[str, float]:
        """Metrics of the last evaluation called `name`; empty where there was none."""
        found = [e for e in self.evaluations if e.name == name]
        return dict(found[-1].metrics) if found else {}

    def best(self, name: str, metric: str, *, mode: str = "max") -> EvaluationRecord | None:
        """The evaluation called `name` whose `metric` is largest (`mode="min"`: smallest).

        NaN never counts. Choose on validation data: the best of many looks at test data is not a
        test result.

        Raises:
            ConfigurationError: `mode` is neither of the two.
        """
        if mode not in ("min", "max"):
            raise ConfigurationError(
                f"RunResult.best(mode=...) must be 'min' or 'max', got {mode!r}; "
                "'max' suits an accuracy and 'min' a loss"
            )
        of_name = [e for e in self.evaluations if e.name == name and metric in e.metrics]
        found = [e for e in of_name if not math.isnan(e.metrics[metric])]
        pick = max if mode == "max" else min
        return pick(found, key=lambda e: e.metrics[metric]) if found else None

    def plain(self) -> dict[str, Any]:
        """The end of the run, ready for JSON (without the records, which have their own lines)."""
        end = {"kind": "end", "status": self.status.value, "reason": self.reason}
        return {**end, "ticks": self.ticks, "seconds": self.seconds}


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as plain numbers: scalars as floats, other tensors as lists."""
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.dim() > 0:
            plain[name] = value.detach().to(torch.float64).tolist()
        else:
            plain[name] = float(value)
    return plain
