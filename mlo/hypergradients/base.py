r"""The seam for hypergradient methods.

A problem with parameters w and stationarity condition g(w, c) = 0 answers a cotangent v with

    c_bar = -(dg/dc)^T u,    (dg/dw)^T u = v        (implicit function theorem)

or with what a method puts in the place of this u. See `mlo.condition.Condition` for the products
that a method is made of.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from mlo.records import Info
from mlo.types import PartialTensors, Tensors

if TYPE_CHECKING:
    from mlo.condition import Condition
    from mlo.graph import DependencyGraph
    from mlo.problem import Problem

State: TypeAlias = Any
"""What a method remembers between calls: a pytree of plain tensors, or `None`."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a method returns.

    Attributes:
        grads: one tensor per context tensor (its shape), or `None` where nothing depends.
        start: the cotangent of where the recorded updates began, from methods that need `"steps"`.
        state: the method's state after the call.
        info: products taken, residual and outcome.
    """

    grads: PartialTensors
    state: State = None
    info: Info = dataclasses.field(default_factory=Info)
    start: Tensors | None = None


NEEDS = frozenset(
    {
        *("moves", "optimizer", "adaptation", "steps", "graph", "context_gradient"),
        *("learning_rate", "second_moments", "shared", "staged"),
    }
)
"""What a method may declare to need."""


class Hypergradient(abc.ABC):
    """How the problems above differentiate through a problem's solution.

    A method is a frozen dataclass of its settings; write `vjp` and nothing else unless it keeps a
    state. What it needs is declared; whether it can have that is checked when an engine is built:

    - `"moves"`: it differentiates the recorded last move instead of the condition at a solution;
    - `"optimizer"`: it uses the derivative of the optimizer's update with respect to the gradient;
    - `"steps"`: it uses recorded steps of the optimizer as functions (`Move.step.updates`), and
      says where they began (`Result.start`), so that a problem's start can be followed;
    - `"adaptation"`: with `"optimizer"`, that derivative as SAMA approximates it (see `Sama`);
    - `"graph"`: it can use the graph of the move's gradient, where that was made in the same tick;
    - `"context_gradient"`: it uses the gradient with respect to the context at the recorded move;
    - `"shared"`: it evaluates the loss again where the move was made, and can use what `once` has
      kept of it (`Condition.direct_gradient`);
    - `"learning_rate"`: it uses the optimizer's learning rates, which `mlo.solution` cannot offer;
    - `"second_moments"`: it uses the running means of squared gradients that the optimizer keeps;
    - `"staged"`: it works with the plain loss, not with one in which problems below respond, so its
      own problem must be staged.

    A method with `"moves"` differentiates through the last `reach` recorded updates; beyond one it
    needs `"steps"` and `Condition.trajectory`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    differentiable: ClassVar[bool] = False
    """Whether `vjp` may itself be differentiated (serves below an anticipating problem)."""

    reach: ClassVar[int | None] = 1
    """How many recorded updates it differentiates, across moves; `None`: all of the last move."""

    carries: ClassVar[bool] = False
    """Whether it carries derivatives along (`observe`), and so differentiates all updates."""

    def init(self, condition: Condition) -> State:
        """The state before the first call. Default: none."""
        return None

    def check_place(self, problem: Problem, graph: DependencyGraph) -> None:  # noqa: B027
        """Refuse to serve where the method cannot, when an engine is built. Default: never.

        Raises:
            MethodError: it cannot serve for this problem.
        """

    def work(self, size: int) -> int | None:
        """Products that `vjp` takes at most for `size` parameters, or `None`: it does not say."""
        return None

    def observe(self, condition: Condition, state: State) -> State:
        """The state after a real move of the problem, `condition.move`. Default: unchanged.

        The move is recorded in full where somebody may differentiate through it later. Methods with
        another `reach` than 1 see every update of a move.
        """
        return state

    @abc.abstractmethod
    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """Return ``-(dg/dc)^T (dg/dw)^{-T} v`` for every tensor of `condition.context`.

        Args:
            condition: the stationarity condition and its products.
            cotangent: v, one tensor per tensor of `condition.params`.
            state: what `init` or the last call returned.
        """
