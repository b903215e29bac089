"""`ForwardMode`: tangents of the upper parameters, carried along with every update."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mlo.errors import MethodError, listed
from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.fields import check_whole
from mlo.hypergradients.registry import register
from mlo.hypergradients.reverse import Bars, linear_steps, pull_back
from mlo.optimizer_steps import GRADIENT, PARAMETER, LinearStep
from mlo.records import Info, Outcome, code_where
from mlo.types import Tensors
from mlo.vectors import finite, zeros_like

if TYPE_CHECKING:
    from mlo.condition import Condition
    from mlo.graph import DependencyGraph
    from mlo.problem import Problem

Tangents = list[dict[str, Tensor]]
"""For every parameter: `PARAMETER` or a state of its optimizer -> tangents, one a row."""


@register("forward-mode")
@dataclasses.dataclass(frozen=True)
class ForwardMode(Hypergradient):
    r"""Carries Z = dw/dc along: few upper parameters, any number of updates.

    An update is (w', s') = step(w, g(w, c), s), s the state of its optimizer. After each real one

        g_dot = (dg/dw) Z + dg/dc,    (Z', S') = (dstep) (Z, g_dot, S)

    with everything taken where it was made; a cotangent v is answered by Z^T v. The tangents start
    at zero when the engine is built, and wherever the problem begins anew. Moves on trial are
    differentiated in reverse, as by `Unrolled`, and the tangents before them do the rest. The same
    optimizers as `Unrolled`; problems that are staged, with dense gradients, without `project=`,
    whose start reads nobody that answers are to be found for.

    Cost: for m entries of upper parameters 2 m + 3 gradient evaluations an update, whether it is
    asked or not; an answer costs m inner products. Memory: m vectors of the size of the parameters
    and of the optimizer's state, whatever the number of updates, and what `Unrolled()` stores of
    one move. Bias: none against the derivative of all updates so far, in which upper parameters
    that moved count as having been moved all along by the same amount. Source: Franceschi et al.,
    ICML 2017, algorithm 2.

    The tangents are taken by differentiating the exact reverse products, not by forward-mode
    autograd, which has no rules for some operations and wrong ones for others.

    Args:
        limit: most entries of upper parameters that it takes on.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"moves", "steps", "staged"})
    reach: ClassVar[int | None] = None
    carries: ClassVar[bool] = True

    limit: int = 100

    def __post_init__(self) -> None:
        check_whole(self, "limit", least=1)

    def check_place(self, problem: Problem, graph: DependencyGraph) -> None:
        """Refuse many upper parameters, projections, and starts that depend on these.

        Raises:
            MethodError: there is one of them.
        """
        name, uppers = problem.name, graph.carrying(problem.name)
        count = sum(graph.nodes[upper].size for upper in uppers)
        routes = problem.start_reads.names if problem.start_reads else ()
        wrong = ""
        if count > self.limit:
            wrong = (
                f"would carry {count} tangents, for all entries of {listed(sorted(uppers))}, more "
                f"than ForwardMode(limit={self.limit}) allows; use Unrolled(), or raise the limit"
            )
        elif problem.project is not None:
            wrong = "carries no tangents through project=; use Unrolled() or OneStep()"
        elif any(r in uppers for r in routes):
            wrong = "carries no tangents through a start that reads upper problems; use Unrolled()"
        if wrong:
            raise MethodError(f"problem '{name}': hypergradient=ForwardMode {wrong}", problem=name)

    def init(self, condition: Condition) -> State:
        """Nothing depends on anything yet."""
        return {"tangents": {}, "products": 0}

    def observe(self, condition: Condition, state: State) -> State:
        """Push the tangents through the update that was made."""
        anew = condition.move is not None and condition.move.begun is not None
        before = {} if anew else state["tangents"]
        steps, after = linear_steps(condition), {}
        for index, position in enumerate(condition.positions):
            old = before.get(position, [{} for _ in condition.params])
            g_dot = _gradient_tangents(condition, old, index)
            after[position] = _pushed(steps, old, g_dot)
        columns = sum(c.numel() for c in condition.context)
        return {"tangents": after, "products": state["products"] + columns}

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """In reverse through moves on trial, then by the tangents before them."""
        trials = itertools.takewhile(_on_trial, condition.trajectory())
        found = pull_back(condition, cotangent, trials)
        grads = found.context
        if not _began_on_trial(condition):
            rows = [state["tangents"].get(position) for position in condition.positions]
            grads = tuple(
                _answered(tangents, found.bars, c, direct)
                for tangents, c, direct in zip(rows, condition.context, grads, strict=True)
            )
        code = code_where(~finite((*grads, *found.params)), Outcome.NONFINITE, 0)
        info = Info(products=found.updates + state["products"], code=code)
        return Result(grads, {**state, "products": 0}, info)


def _on_trial(at: Condition) -> bool:
    return at.move is not None and at.move.trial


def _began_on_trial(condition: Condition) -> bool:
    """Whether the tangents are those of parameters that were given up for a start."""
    move = condition.move
    return move is not None and move.trial and (*move.past, move)[0].begun is not None


def _gradient_tangents(condition: Condition, tangents: Tangents, index: int) -> Tensors:
    """``(dg/dw) Z + dg/dc`` for the context tensor with this index; one row an entry."""
    c = condition.context[index]
    rows = []
    for j in range(c.numel()):
        z = [
            t[PARAMETER][j] if PARAMETER in t else torch.zeros_like(w)
            for t, w in zip(tangents, condition.params, strict=True)
        ]
        e = list(zeros_like(condition.context))
        e[index].view(-1)[j] = 1.0
        rows.append(condition.jvp(z, e))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _pushed(
    steps: Sequence[LinearStep | None], tangents: Tangents, g_dot: Sequence[Tensor]
) -> Tangents:
    """The tangents after an update; a parameter that was left alone keeps its own."""
    return [
        dict(old) if step is None else step.jvp({**old, GRADIENT: g})
        for step, old, g in zip(steps, tangents, g_dot, strict=True)
    ]


def _answered(tangents: Tangents | None, bars: Bars, c: Tensor, direct: Tensor | None) -> Any:
    """``Z^T v`` in the shape of c, and what trial moves add to it; `None` where nothing depends."""
    if tangents is None:
        return direct
    total = torch.zeros(c.numel(), dtype=c.dtype, device=c.device)
    for rows, bar in zip(tangents, bars, strict=True):
        for name, cotangent in bar.items():
            if name in rows:
                product = rows[name].reshape(c.numel(), -1) @ cotangent.reshape(-1)
                total = total + product.to(c.dtype)
    return total.reshape(c.shape) if direct is None else direct + total.reshape(c.shape)
