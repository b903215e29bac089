"""What the engine tells the world: immutable records of moves, ticks, evaluations and runs.

Numbers stay 0-dimensional tensors on their device until somebody reads them, so that keeping a
record never forces the host to wait for the device.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.distribution import Distribution


class Outcome(enum.Enum):
    """How a hypergradient computation ended; the value is the sentence shown to the user."""

    EXPLICIT = "no linear system was solved"
    ZERO = "the right-hand side was zero, and so is the adjoint"
    CONVERGED = "the residual is within the tolerance"
    LIMIT = "the residual is above the tolerance; allow more work, or accept the approximation"
    NEGATIVE_CURVATURE = "negative curvature: the Hessian is not positive definite; add damping"
    DIVERGED = (
        "the residual exceeds the right-hand side; decrease alpha, raise the rank or add damping"
    )
    SINGULAR = "the Hessian is singular; add damping or a regularizer"
    INACCURATE = "two finite-difference radii disagree; change the radius or use exact products"
    OFF_COURSE = (
        "recorded updates, made again, do not lead where they led: keep hands off the parameters "
        "between ticks, and draw random numbers from the global generators"
    )
    NONFINITE = "a NaN or an infinity appeared"

    @property
    def failed(self) -> bool:
        """Whether the hypergradient cannot be relied on; stopping at a limit is no failure."""
        return bool(has_failed(code_of(self)))


OUTCOMES = tuple(Outcome)
"""From those that are fine to those that are not."""


def code_of(outcome: Outcome) -> int:
    """The index of an outcome in `OUTCOMES`."""
    return OUTCOMES.index(outcome)


def has_failed(code: Any) -> Any:
    """Whether an outcome's code, a number or a 0-dim tensor, stands for a failure."""
    return code > code_of(Outcome.LIMIT)


def code_where(condition: Tensor, outcome: Outcome, code: int | Tensor) -> Tensor:
    """The code of `outcome` where the 0-dim condition holds, else `code`; decided on the device."""
    return torch.where(condition, code_of(outcome), code)


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


def together(infos: Sequence[Info]) -> Info:
    """Several solves as one: their products added up, the worst outcome and residual."""
    first, *rest = infos
    for info in rest:
        residuals = [r for r in (first.residual, info.residual) if r is not None]
        worst = torch.stack(residuals).amax() if residuals else None
        a, b = torch.as_tensor(first.code), torch.as_tensor(info.code)
        device = max(a.device, b.device, key=lambda d: d.type != "cpu")
        code = torch.maximum(a.to(device), b.to(device))
        first = Info(first.products + info.products, worst, code)
    return first


@dataclasses.dataclass(frozen=True)
class ResponseRecord:
    """How the response of one problem went in one move.

    Attributes:
        problem: whose response.
        method: by which method.
        info: products, residual and outcome, of all solves together where there were several.
        solves: how many there were; more than one below an anticipating problem.
    """

    problem: str
    method: str
    info: Info
    solves: int = 1


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
                {
                    "problem": r.problem,
                    "method": r.method,
                    "solves": r.solves,
                    **r.info.plain(),
                }
                for r in self.responses
            ],
        }


@dataclasses.dataclass(frozen=True)
class TickRecord:
    """All moves of one tick, in the order in which they were made, and the seconds they took.

    Attributes:
        tick: the tick, counted from 0.
        moves: its moves; none where it was taken back.
        seconds: how long it took.
        taken_back: where something was not finite: what, and how far things went back.
    """

    tick: int
    moves: tuple[MoveRecord, ...]
    seconds: float
    taken_back: str | None = None

    @property
    def losses(self) -> dict[str, float]:
        """Problem name -> loss of its last move in this tick."""
        return {move.problem: float(move.loss) for move in self.moves}

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers, ready for JSON."""
        moves = [move.plain() for move in self.moves]
        plain = {"kind": "tick", "tick": self.tick, "seconds": self.seconds, "moves": moves}
        return plain if self.taken_back is None else {**plain, "taken_back": self.taken_back}


@dataclasses.dataclass(frozen=True)
class EvaluationRecord:
    """What one evaluation returned after `tick` (counted from 0).

    Attributes:
        tick: the tick after which it was made.
        name: name of the evaluation.
        metrics: metric -> number; of a vector its mean.
        seconds: how long it took.
        distributions: metric -> distribution, of those that were vectors.
    """

    tick: int
    name: str
    metrics: Mapping[str, float]
    seconds: float
    distributions: Mapping[str, Distribution] = dataclasses.field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The record as plain numbers, ready for JSON."""
        return {"kind": "evaluation", **dataclasses.asdict(self)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> EvaluationRecord:
        """The inverse of `plain`."""
        fields = {key: value for key, value in plain.items() if key != "kind"}
        found = {
            key: Distribution(**{**d, "percentiles": tuple(d["percentiles"])})
            for key, d in plain["distributions"].items()
        }
        return cls(**{**fields, "distributions": found})


@dataclasses.dataclass(frozen=True)
class CheckpointRecord:
    """A state that was saved.

    Attributes:
        tick: the tick after which it was made, counted from 0.
        path: the file.
        bytes: its size.
        seconds: how long it took.
    """

    tick: int
    path: str
    bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class StartRecord:
    """What is known when a run starts.

    Attributes:
        ticks: ticks of the whole run.
        problems: their names, from the lowest level.
        graph: the dependency graph, drawn as text.
        drawing: the same as plain values, as `DependencyGraph.plain` returns them.
        done: ticks that were made before, where the run goes on.
    """

    ticks: int
    problems: tuple[str, ...]
    graph: str
    drawing: Mapping[str, Any]
    done: int = 0

    def plain(self) -> dict[str, Any]:
        """The record, ready for JSON."""
        return {"kind": "start", **dataclasses.asdict(self)}


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as plain numbers: scalars as floats, other tensors as lists."""
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.dim() > 0:
            plain[name] = value.detach().to(torch.float64).tolist()
        else:
            plain[name] = float(value)
    return plain
