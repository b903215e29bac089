"""Where a response is taken: turns a cotangent of a solution into cotangents of its context."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.condition import Condition, Linearization, Memory
from mlo.differentiation import differentiate
from mlo.moves import Move
from mlo.response import Needed
from mlo.types import PartialTensors, Tensors, Values
from mlo.vectors import dense, detached, filled, grouped, leaves, plus

if TYPE_CHECKING:
    from mlo.sweep import Sweep


class Site:
    """The response of one problem in one sweep."""

    def __init__(self, sweep: Sweep, name: str, move: Move) -> None:
        self.sweep = sweep
        self.name = name
        self.move = move
        self.method = sweep.program.problems[name].hypergradient
        self.values = dict(sweep.values)
        self.begun = move.begun if "moves" in self.method.needs and move.step else None
        self.memories: dict[tuple[int, ...], Memory] = {}

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        """Cotangents of the context, for one of the parameters."""
        if torch.is_grad_enabled() and self.sweep.program.graph.nested == "projected":
            # The answer counts as linear in the cotangent: third-order terms go.
            params, context = detached(params), detached(context)
        cotangent = filled(dense(cotangent), params)
        make = functools.partial(self.condition, params, context, needed)
        found = self.sweep.answer(self.name, self.method, make, cotangent)
        wanted = Needed(needed)
        if self.begun is not None:
            count = len(wanted.index)
            found = self._through_start(found[:count], found[count:], wanted, cotangent)
        return wanted.spread(found)

    def _through_start(
        self,
        direct: PartialTensors,
        answered: PartialTensors,
        needed: Needed,
        v: Tensors,
    ) -> PartialTensors:
        """Add the route through the start s(c): ``(ds/dc)^T (dw'/ds)^T v``.

        Args:
            direct: cotangents of the context at a fixed s.
            answered: ``-(dg/ds)^T u``, what the method found for s.
            needed: which context tensors are asked for.
            v: the cotangent of w'.
        """
        move, sweep = self.move, self.sweep.as_of(self.move)
        if move.step is None or move.begun is None:
            raise RuntimeError("only a move that began anew has a start")
        s_bar = filled(plus(move.step.start_vjp(v), answered), v)
        names = sweep.program.graph.context(self.name)
        with torch.enable_grad():
            env = dict(sweep.values)
            env.update({n: leaves(env[n]) for n in names})
            start = sweep.begin(self.name, move.begun, env, replay=True)
            wanted = needed.of(sweep.context(self.name, env))
            routed = differentiate(self.name, start, wanted, s_bar)
        return plus(direct, routed)

    def condition(self, params: Tensors, context: Tensors, needed: Sequence[bool]) -> Condition:
        """The condition at the present point, or where the recorded move was made."""
        sweep, move, values = self.sweep, self.move, self.values
        recorded = "moves" in self.method.needs
        if recorded and move.before is not None:
            sweep = sweep.as_of(move)
            values = sweep.values
            params, context = move.before, sweep.context(self.name, values)
        wanted = Needed(needed)
        index = wanted.index
        names = sweep.program.graph.context(self.name)
        partial = sweep.program.graph.nested == "partial"
        count, chosen = len(index), wanted.of(context)

        def placed(w: Tensors, c: Tensors) -> tuple[Tensors, Values]:
            full = wanted.into(context, c[:count])
            if self.begun is not None:  # w is where the start led, and a shift from there
                w = tuple(a + (s - s.detach()) for a, s in zip(w, c[count:], strict=True))
            return w, {**values, **grouped(names, values, full)}

        def objective(w: Tensors, c: Tensors) -> Tensor:
            w, env = placed(w, c)
            return sweep.total(self.name, w, env, move.setting, replay=True, partial=partial).loss

        def parts(w: Tensors, c: Tensors, visitor: Callable[[Tensor], None]) -> None:
            w, env = placed(w, c)
            sweep.visit(self.name, {**env, self.name: w}, move.setting, visitor)

        many = len(move.setting.batches) > 1 and not sweep.program.graph.scope(self.name)
        return Condition(
            objective,
            params,
            chosen if self.begun is None else (*chosen, *params),
            problem=self.name,
            learning_rate=move.learning_rate,
            move=_restricted_move(move, index),
            graph=_restricted(move, index) if recorded else None,
            memory=self._memory(index),
            parts=parts if many else None,
        )

    def _memory(self, index: tuple[int, ...]) -> Memory:
        """What all conditions at this point share that have this part of the context."""
        if index not in self.memories:
            self.memories[index] = self.sweep.memory(self.name, self.method)
        return self.memories[index]


def _restricted(move: Move, index: Sequence[int]) -> Linearization | None:
    if move.graph is None:
        return None
    context = tuple(move.graph.context[i] for i in index)
    if move.begun is not None:
        context = (*context, *move.graph.params)
    return dataclasses.replace(move.graph, context=context)


def _restricted_move(move: Move, index: Sequence[int]) -> Move:
    if move.context_gradient is None:
        return move
    gradient = tuple(move.context_gradient[i] for i in index)
    if move.begun is not None and move.before is not None:
        gradient += move.context_gradient[-len(move.before) :]
    return dataclasses.replace(move, context_gradient=gradient)
