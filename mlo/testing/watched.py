"""Asking an engine for a hypergradient while looking at all that its method does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from mlo.condition import Condition
from mlo.engine import Engine
from mlo.graph import DependencyGraph
from mlo.hypergradients import Hypergradient, Result, State
from mlo.problem import Problem
from mlo.records import Outcome
from mlo.testing.forms import ClosedForm
from mlo.types import Tensors


@dataclasses.dataclass(frozen=True)
class Answer:
    """A hypergradient and what was reported on the way to it.

    Attributes:
        values: name -> tensor.
        outcome: the worst outcome among all responses.
        residual: the largest residual, or `None` where none was reported.
        products: products taken, by all responses together.
    """

    values: Mapping[str, Tensor]
    outcome: Outcome
    residual: float | None
    products: int


@dataclasses.dataclass(frozen=True)
class Call:
    """What a `vjp` was given."""

    condition: Condition
    cotangent: Tensors
    state: State


class Watched(Hypergradient):
    """Hands everything on to a method and notes what is wrong with what comes back.

    Attributes:
        method: the method.
        complaints: what was wrong, in sentences.
        calls: problem -> the last first-order call of `vjp` for it.
        states: problem -> the method's state after it.

    Args:
        method: the method.
        begun: states to begin with, for those problems that have one; the method's own for others.
    """

    def __init__(self, method: Hypergradient, begun: Mapping[str, State] | None = None) -> None:
        self.method = method
        self.begun = begun or {}
        self.states: dict[str, State] = {}
        self.complaints: list[str] = []
        self.calls: dict[str, Call] = {}

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Those of the method."""
        return self.method.needs

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.method.differentiable

    def check_place(self, problem: Problem, graph: DependencyGraph) -> None:
        """The method may refuse."""
        self.method.check_place(problem, graph)

    def init(self, condition: Condition) -> State:
        """The state to begin with, or the method's first one."""
        if condition.problem in self.begun:
            return self.begun[condition.problem]
        return self._checked("init()", self.method.init(condition))

    @property
    def reach(self) -> int | None:  # type: ignore[override]
        """That of the method."""
        return self.method.reach

    @property
    def carries(self) -> bool:  # type: ignore[override]
        """As the method does."""
        return self.method.carries

    def observe(self, condition: Condition, state: State) -> State:
        """The method's state after a move."""
        return self._checked("observe()", self.method.observe(condition, state))

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """The method's answer."""
        result = self.method.vjp(condition, cotangent, state)
        if not condition.attached:
            self.calls[condition.problem] = Call(condition, cotangent, state)
        if isinstance(result, Result):
            state = self._checked("the Result of vjp()", result.state)
            if not condition.attached:
                self.states[condition.problem] = state
            self._check_gradients(condition, result)
        return result

    def _checked(self, where: str, state: State) -> State:
        for leaf in tree_leaves(state):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                self._complain(
                    f"{where} has a state whose tensors carry a graph; expected plain tensors, "
                    "so detach() them"
                )
            elif not isinstance(leaf, Tensor | int | float | str | None):
                self._complain(
                    f"{where} has a state with a {type(leaf).__name__} in it; expected tensors and "
                    "numbers in tuples, lists and dictionaries"
                )
        return state

    def _check_gradients(self, condition: Condition, result: Result) -> None:
        """Dtype, device and graph; the engine checks the shapes."""
        present = [g for g in result.grads if isinstance(g, Tensor)]
        if not condition.attached and any(g.requires_grad for g in present):
            self._complain("vjp() returned gradients that carry a graph, where none is wanted")
        for g, c in zip(result.grads, condition.context, strict=False):
            if isinstance(g, Tensor) and (g.dtype, g.device) != (c.dtype, c.device):
                self._complain(
                    f"vjp() returned {g.dtype} on {g.device} for a context tensor of {c.dtype} "
                    f"on {c.device}"
                )

    def _complain(self, sentence: str) -> None:
        if sentence not in self.complaints:
            self.complaints.append(sentence)


def ask(
    form: ClosedForm, method: Hypergradient, *, rate: float, away: bool = False, **settings: Any
) -> Answer:
    """The hypergradient that `method` gives for a closed form, and what it reported."""
    return answer_of(form.engine(method, rate=rate, away=away, **settings), form.upper)


def answer_of(engine: Engine, name: str) -> Answer:
    """What the engine answers, and the worst of what it reports."""
    values, responses = engine.total_gradient(name)
    infos = [response.info for response in responses]
    residuals = [float(info.residual) for info in infos if info.residual is not None]
    return Answer(
        values,
        max((info.outcome for info in infos), key=_severity, default=Outcome.ZERO),
        # NaN is no number to hide behind a larger one.
        max(residuals, key=lambda r: math.inf if math.isnan(r) else r, default=None),
        sum(int(info.products) for info in infos),
    )


def _severity(outcome: Outcome) -> int:
    """Failures above limits above claims; an outcome that claims nothing above one that does."""
    mild = [Outcome.ZERO, Outcome.CONVERGED, Outcome.EXPLICIT, Outcome.LIMIT]
    return mild.index(outcome) if outcome in mild else len(mild)
