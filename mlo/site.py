"""Where a response is taken: turns a cotangent of a solution into cotangents of its context."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.condition import Condition
from mlo.differentiation import differentiate
from mlo.errors import MethodError
from mlo.linearization import Linearization, Memory
from mlo.moves import Move
from mlo.once import Kept
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
        self.recorded = "moves" in self.method.needs
        # Methods that are handed whole steps say where they got to (`Result.start`).
        alone = self.recorded and self.method.reach == 1 and "steps" not in self.method.needs
        self.begun = move.begun if alone and move.step else None
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
        result = self.sweep.answer(self.name, self.method, make, cotangent)
        found, wanted = result.grads, Needed(needed)
        count = len(wanted.index)
        if self.begun is not None and self.move.step is not None:
            # (dw'/ds)^T v at a fixed gradient, and -(dg/ds)^T u, which the method found.
            s_bar = plus(self.move.step.start_vjp(cotangent), found[count:])
            found = self._through_start(self.move, found[:count], s_bar, wanted)
        elif "steps" in self.method.needs:
            first = (*self.move.past, self.move)[0]
            if result.start is not None:
                found = self._through_start(first, found, result.start, wanted)
            elif first.begun is not None:
                self._check_no_route()
        return wanted.spread(found)

    def _check_no_route(self) -> None:
        """A method that does not say where it got to must have no start to go on through.

        Raises:
            MethodError: the start reads what hypergradients are to reach.
        """
        program = self.sweep.program
        start, carrying = program.starts[self.name], program.graph.carrying(self.name)
        routes = [read for read in start.reads if read in carrying]
        if routes:
            raise MethodError(
                f"problem '{self.name}': its start reads '{routes[0]}', but vjp() of hypergradient="
                f"{type(self.method).__name__} returned no Result.start, the cotangent of where "
                "the recorded updates began: the route through the start would be lost; return "
                "it, or refuse such problems in check_place()",
                problem=self.name,
            )

    def _through_start(
        self, move: Move, direct: PartialTensors, s_bar: PartialTensors, needed: Needed
    ) -> PartialTensors:
        """Add the route through the start s(c): ``(ds/dc)^T s_bar``.

        Args:
            move: the move that began there; without a start nothing is added.
            direct: cotangents of the context at a fixed s.
            s_bar: the cotangent of s.
            needed: which context tensors are asked for.
        """
        if move.begun is None:
            return direct
        sweep = self.sweep.as_of(move)
        names = sweep.program.graph.context(self.name)
        with torch.enable_grad():
            env = dict(sweep.values)
            env.update({n: leaves(env[n]) for n in names})
            start = sweep.begin(self.name, move.begun, env, replay=True)
            s_bar = filled(s_bar, start)
            wanted = needed.of(sweep.context(self.name, env))
            routed = differentiate(self.name, start, wanted, s_bar)
        return plus(direct, routed)

    def condition(
        self,
        params: Tensors,
        context: Tensors,
        needed: Sequence[bool],
        recalled: Move | None = None,
    ) -> Condition:
        """The condition at the present point, or where a move was made that is recorded.

        Args:
            params: where the problem stands.
            context: what it depends on.
            needed: which of that is asked for.
            recalled: an earlier move, instead of the last.
        """
        sweep, values, led = self.sweep, self.values, params
        move = self.move if recalled is None else recalled
        if self.recorded and move.before is not None:
            sweep = sweep.as_of(move)
            values = sweep.values
            params, context = move.before, sweep.context(self.name, values)
        wanted, graph = Needed(needed), sweep.program.graph
        shifted, index = self.begun is not None, wanted.index
        place = _Place(sweep, self.name, move, values, context, wanted, shifted)
        anticipates = bool(graph.scope(self.name))
        many = len(move.setting.batches) > 1 and not anticipates
        chosen = wanted.of(context)
        return Condition(
            place.objective,
            params,
            (*chosen, *params) if shifted else chosen,
            problem=self.name,
            learning_rate=move.learning_rate,
            move=_restricted_move(move, index, shifted=shifted),
            graph=_restricted(move, index, shifted=shifted),
            memory=self._memory(index) if recalled is None else None,
            parts=place.parts if many else None,
            positions=index,
            recall=functools.partial(self.condition, params, context, needed),
            single_use=recalled is not None,
            scale=sweep.program.optimizer_scale(self.name),
            total=place.total if graph.nested == "partial" and anticipates else None,
            led=led,
            kept=_restricted_kept(move, index, shifted=shifted),
        )

    def _memory(self, index: tuple[int, ...]) -> Memory:
        """What all conditions at this point share that have this part of the context."""
        if index not in self.memories:
            self.memories[index] = self.sweep.memory(self.name, self.method)
        return self.memories[index]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the loss of a problem is evaluated: at a move, or where everybody stands.

    Attributes:
        sweep: as of the move.
        name: the problem.
        move: whose batch, mode and random state it is evaluated under.
        values: where everybody stood.
        context: what the loss depends on.
        wanted: the part of that which derivatives are asked for.
        shifted: whether that part is followed by the parameters, as a shift from the start.
    """

    sweep: Sweep
    name: str
    move: Move
    values: Values
    context: Tensors
    wanted: Needed
    shifted: bool

    def objective(self, w: Tensors, c: Tensors) -> Tensor:
        """The loss, total where those below respond."""
        w, env = self._at(w, c)
        partial = self.sweep.program.graph.nested == "partial"
        setting = self.move.setting
        return self.sweep.total(self.name, w, env, setting, replay=True, partial=partial).loss

    def parts(self, w: Tensors, c: Tensors, visitor: Callable[[Tensor], None]) -> None:
        """The terms that the loss is the sum of, micro-batch by micro-batch."""
        w, env = self._at(w, c)
        self.sweep.visit(self.name, {**env, self.name: w}, self.move.setting, visitor)

    def total(self) -> Tensors:
        """The total gradient where the move was made."""
        params = self.values[self.name] if self.move.before is None else self.move.before
        then = self.sweep.as_of(self.move)
        then.values[self.name] = params
        found = then.gradient(self.name, self.move.setting, replay=True).values
        return filled(dense(found), params)

    def _at(self, w: Tensors, c: Tensors) -> tuple[Tensors, Values]:
        count, names = len(self.wanted.index), self.sweep.program.graph.context(self.name)
        full = self.wanted.into(self.context, c[:count])
        if self.shifted:  # w is where the start led, and a shift from there
            w = tuple(a + (s - s.detach()) for a, s in zip(w, c[count:], strict=True))
        return w, {**self.values, **grouped(names, self.values, full)}


def _restricted(move: Move, index: Sequence[int], *, shifted: bool) -> Linearization | None:
    if move.graph is None:
        return None
    context = tuple(move.graph.context[i] for i in index)
    if shifted:
        context = (*context, *move.graph.params)
    return dataclasses.replace(move.graph, context=context)


def _restricted_kept(move: Move, index: Sequence[int], *, shifted: bool) -> Kept | None:
    if move.kept is None:
        return None
    context = tuple(move.kept.context[i] for i in index)
    # It is no function of where the problem began.
    return move.kept.restricted((*context, *detached(move.before or ())) if shifted else context)


def _restricted_move(move: Move, index: Sequence[int], *, shifted: bool) -> Move:
    if move.context_gradient is None:
        return move
    gradient = tuple(move.context_gradient[i] for i in index)
    if shifted and move.before is not None:
        gradient += move.context_gradient[-len(move.before) :]
    return dataclasses.replace(move, context_gradient=gradient)
