r"""The response alone, for those who own their loop.

Whatever has minimized a loss f(w, c), `solution` returns w attached to c: backward receives a
cotangent v and returns, for every tensor of the context,

    c_bar = -(dg/dc)^T u,    (dg/dw)^T u = v,    g = df/dw        (implicit function theorem)

made of differentiable operations, so that it can be differentiated again and nests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_unflatten,
)

from mlo.arguments import checked_method
from mlo.condition import Condition
from mlo.devices import accelerators
from mlo.errors import MethodError
from mlo.guards import check_closed, checked_scalar, refusing_checkpointing, refusing_writes
from mlo.hypergradients import ConjugateGradient, Hypergradient
from mlo.linearization import Memory
from mlo.notes import noting
from mlo.own_loop_checks import check_context, check_loss, check_method, check_params
from mlo.randomness import RandomState, replayed
from mlo.records import Info, ResponseRecord
from mlo.response import Needed, check_result, respond, warn_of_failure
from mlo.types import PartialTensors, Tensors
from mlo.vectors import dense, filled

P = TypeVar("P")
Loss: TypeAlias = Callable[[Any, Any], Tensor]


def solution(
    params: P,
    loss: Loss,
    context: Any,
    method: Hypergradient | None = None,
    *,
    name: str = "solution",
) -> P:
    """The parameters, unchanged in value, attached to the context that they were solved for.

    The implicit function theorem holds at a solution: where the gradient of the loss with respect
    to `params` is not small, the derivatives are those of a problem that has not been solved.

    The loss is called in the backward pass only, any number of times, under the random state of
    this call (dropout draws the same masks). What it closes over must then be as it is now, and
    it must change nothing, such as running statistics. Cost and bias are those of the method.

    Args:
        params: where the loss is minimal: a tensor, or a dict, list or tuple of floating-point
            tensors, nested as you like. They are copied; what history they have is left out.
        loss: function of `params` and `context`, in these structures, that returns a scalar
            tensor. It may call `solution` itself, for a lower level. Tensors that require grad
            reach it as arguments only.
        context: what the solution depends on: a tensor, or a nested structure. Tensors that do not
            require grad, and leaves that are no tensors, are constants.
        method: how the linear system is solved, `ConjugateGradient()` by default; it must not need
            recorded moves or an optimizer.
        name: what to call this problem in messages.

    Returns:
        A structure like `params`; without history under `torch.no_grad()`, or where no tensor of
        the context requires grad.

    Raises:
        DeclarationError: an argument is of the wrong kind.
        MethodError: the method cannot serve here; in backward, it cannot be differentiated again.
        EvaluationError: (one of its kinds) in backward, the loss failed, is no scalar, depends on
            no parameter, uses tensors that it was not handed, or has no second derivative.

    Warns:
        HypergradientWarning: in backward, a linear solve failed; the message says how.
    """
    check_loss(name, loss)
    check_params(name, params)
    check_context(name, context)
    own, w = _opened(params)
    outside, c = _opened(context)
    method = checked_method(name, method, ConjugateGradient(), "method")
    check_method(name, method, sum(p.numel() for p in w))
    random = RandomState.capture(accelerators((*w, *c)))
    site = _Site(name, loss, own, outside, method, random)
    # Copies, since an optimizer may move the parameters on before backward is called.
    solved: P = own.holding(respond(site, tuple(p.detach().clone() for p in w), c))
    return solved


class _Frame:
    """A nested structure without its tensors, which other tensors can be put into."""

    def __init__(self, leaves: Sequence[Any], spec: TreeSpec) -> None:
        self._rest = [None if isinstance(x, Tensor) else x for x in leaves]
        self._places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        self._spec = spec

    def holding(self, tensors: Sequence[Tensor]) -> Any:
        """The structure with these tensors in it."""
        leaves = list(self._rest)
        for i, tensor in zip(self._places, tensors, strict=True):
            leaves[i] = tensor
        return tree_unflatten(leaves, self._spec)


def _opened(tree: Any) -> tuple[_Frame, Tensors]:
    leaves, spec = tree_flatten(tree)
    return _Frame(leaves, spec), tuple(x for x in leaves if isinstance(x, Tensor))


@dataclasses.dataclass
class _Site:
    """The response of one loss at one point; the method's state lives as long as it does."""

    name: str
    loss: Loss
    params: _Frame
    context: _Frame
    method: Hypergradient
    random: RandomState
    states: list[Any] = dataclasses.field(default_factory=list)

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        condition = self._condition(params, context, needed)
        if condition.attached and not self.method.differentiable:
            raise MethodError(
                f"problem '{self.name}': method={type(self.method).__name__} cannot be "
                "differentiated again, which create_graph=True or a solution around this one asks "
                "for; use ConjugateGradient(), Neumann(alpha=...) or Dense()",
                problem=self.name,
            )
        if not self.states:
            with torch.no_grad():  # states are plain tensors
                self.states = [self.method.init(self._condition(params, context, needed))]
        cotangent = filled(dense(cotangent), params)
        result = self.method.vjp(condition, cotangent, self.states[0])
        check_result(self.name, self.method, result, params, condition.context)
        self.states = [result.state]
        self._report(result.info)
        return Needed(needed).spread(result.grads)

    def _condition(self, params: Tensors, context: Tensors, needed: Sequence[bool]) -> Condition:
        wanted = Needed(needed)

        def objective(w: Tensors, c: Tensors) -> Tensor:
            return self._evaluate(w, wanted.into(context, c))

        return Condition(
            objective,
            params,
            wanted.of(context),
            problem=self.name,
            learning_rate=(float("nan"),) * len(params),
            memory=Memory(report=self._report),
        )

    def _report(self, info: Info) -> None:
        record = ResponseRecord(self.name, type(self.method).__name__, info)
        warn_of_failure("backward", record, stacklevel=1)

    def _evaluate(self, params: Tensors, context: Tensors) -> Tensor:
        given = {"params": params, "context": context}
        with (
            refusing_checkpointing(self.name),
            refusing_writes(self.name, given),
            replayed(self.random),
            noting(f"in the loss of problem '{self.name}'"),
        ):
            returned = self.loss(self.params.holding(params), self.context.holding(context))
        # Under autocast, casts of the given tensors would be kept until its end.
        torch.clear_autocast_cache()
        loss = checked_scalar(self.name, returned)
        check_closed(self.name, loss, params, context)
        return loss
