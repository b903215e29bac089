"""One computation of a total gradient: where everybody stands, and who responds how.

A sweep holds values, one set of tensors a problem, and the moves that are differentiated through.
Trial moves change the sweep and nothing else; live tensors are only read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlo.condition import Condition, Linearization, Memory
from mlo.differentiation import differentiate
from mlo.errors import MethodError
from mlo.evaluation import Evaluation
from mlo.hypergradients import Hypergradient, Result
from mlo.moves import Move
from mlo.program import Program
from mlo.records import Info, ResponseRecord, together
from mlo.response import respond
from mlo.setting import Setting
from mlo.types import PartialTensors, Tensors, Values
from mlo.vectors import dense, filled, shapes


@dataclasses.dataclass(frozen=True)
class Gradient:
    """A total gradient, the evaluation that it was taken from, and its graph where kept."""

    values: PartialTensors
    evaluation: Evaluation
    graph: Linearization | None = None
    context_gradient: PartialTensors | None = None


class Sweep:
    """Values, moves and method states of one computation.

    Args:
        program: the compiled declaration.
        values: problem -> where it stands.
        moves: problem -> the move (or only its setting) that its response is taken at.
        states: problem -> state of its method; new states replace these here and nowhere else.
    """

    def __init__(
        self,
        program: Program,
        values: Values,
        moves: Mapping[str, Move],
        states: Mapping[str, object],
    ) -> None:
        self.program = program
        self.values = dict(values)
        self.moves = dict(moves)
        self.states = dict(states)
        self._solves: dict[str, list[Info]] = {}

    def as_of(self, move: Move) -> Sweep:
        """The sweep in which a recorded move was made; what it finds is found by this one."""
        values, moves = {**self.values, **move.reads}, {**self.moves, **move.below}
        then = Sweep(self.program, values, moves, {})
        then.states, then._solves = self.states, self._solves
        return then

    def note(self, name: str, info: Info) -> None:
        """Remember how a solve for the response of `name` went."""
        self._solves.setdefault(name, []).append(info)

    @property
    def responses(self) -> tuple[ResponseRecord, ...]:
        """How the responses went so far, one record a problem."""
        problems = self.program.problems
        return tuple(
            ResponseRecord(
                name, type(problems[name].hypergradient).__name__, together(infos), len(infos)
            )
            for name, infos in self._solves.items()
        )

    def gradient(
        self, name: str, setting: Setting, *, graph: bool = False, context: bool = False
    ) -> Gradient:
        """The total gradient of the loss of `name` with respect to its own variables.

        Args:
            name: whose.
            setting: under what; random numbers are drawn, not replayed.
            graph: keep the gradient's graph (for a problem without a scope).
            context: take the gradient with respect to the context in the same pass.
        """
        own = _leaves(self.values[name])
        env = dict(self.values)
        outside: Tensors = ()
        if graph or context:
            for read in self.program.graph.carrying(name):
                env[read] = _leaves(self.values[read])
            outside = self._context(name, env)
        with torch.enable_grad():
            evaluation = self.total(name, own, env, setting, replay=False)
            wrt = (*own, *outside) if context else own
            grads = differentiate(name, [evaluation.loss], wrt, create_graph=graph)
        values, rest = grads[: len(own)], grads[len(own) :]
        kept = Linearization(own, outside, values) if graph else None
        return Gradient(values, evaluation, kept, rest if context else None)

    def total(
        self,
        name: str,
        own: Tensors,
        env: Values,
        setting: Setting,
        *,
        replay: bool,
        partial: bool = False,
    ) -> Evaluation:
        """The loss of `name` at `own`, with the problems of its scope replaced by responses.

        Args:
            name: whose.
            own: its parameters.
            env: problem -> tensors, for all others.
            setting: under what.
            replay: draw the random numbers of the setting again.
            partial: let the responses answer to everybody but `name`.
        """
        graph = self.program.graph
        env = {**env, name: tuple(t.detach() for t in own) if partial else own}
        for other in graph.order(name):
            env[other] = self._respond(other, env)
        env[name] = own
        node = graph.nodes[name]
        values = {
            read: tuple(t.detach() for t in env[read]) if read in node.constant else env[read]
            for read in node.reads
        }
        return self.program.objectives[name](values, setting, replay=replay)

    def condition(self, name: str, move: Move) -> Condition:
        """The condition of `name` at a move, with respect to its whole context."""
        context = self._context(name, self.values)
        site = _Site(self, name, move)
        return site.condition(self.values[name], context, (True,) * len(context))

    def _respond(self, name: str, env: Values) -> Tensors:
        site = _Site(self, name, self.moves[name])
        return respond(site, self.values[name], self._context(name, env))

    def _context(self, name: str, env: Values) -> Tensors:
        return tuple(t for read in self.program.graph.context(name) for t in env[read])


class _Site:
    """The response of one problem in one sweep."""

    def __init__(self, sweep: Sweep, name: str, move: Move) -> None:
        self.sweep = sweep
        self.name = name
        self.move = move
        self.method = sweep.program.problems[name].hypergradient
        self.values = dict(sweep.values)
        self.memories: dict[tuple[int, ...], Memory] = {}

    def backward(
        self, params: Tensors, context: Tensors, needed: Sequence[bool], cotangent: Tensors
    ) -> PartialTensors:
        if torch.is_grad_enabled() and self.sweep.program.graph.nested == "projected":
            # The answer counts as linear in the cotangent: third-order terms go.
            params, context = _detached(params), _detached(context)
        condition = self.condition(params, context, needed)
        if self.name not in self.sweep.states:
            with torch.no_grad():  # states are plain tensors
                detached = self.condition(params, context, needed)
                self.sweep.states[self.name] = self.method.init(detached)
        cotangent = filled(dense(cotangent), params)
        result = self.method.vjp(condition, cotangent, self.sweep.states[self.name])
        _check_result(self.name, self.method, result, condition.context)
        self.sweep.states[self.name] = result.state
        self.sweep.note(self.name, result.info)
        grads = iter(result.grads)
        return tuple(next(grads) if need else None for need in needed)

    def condition(self, params: Tensors, context: Tensors, needed: Sequence[bool]) -> Condition:
        """The condition at the present point, or where the recorded move was made."""
        sweep, move, values = self.sweep, self.move, self.values
        recorded = "moves" in self.method.needs
        if recorded and move.before is not None:
            sweep = sweep.as_of(move)
            values = sweep.values
            params, context = move.before, sweep._context(self.name, values)
        index = tuple(i for i, need in enumerate(needed) if need)
        names = sweep.program.graph.context(self.name)
        sizes = [len(values[n]) for n in names]
        partial = sweep.program.graph.nested == "partial"

        def objective(w: Tensors, c: Tensors) -> Tensor:
            full = list(context)
            for i, x in zip(index, c, strict=True):
                full[i] = x
            env = {**values, **_grouped(names, sizes, full)}
            return sweep.total(self.name, w, env, move.setting, replay=True, partial=partial).loss

        return Condition(
            objective,
            params,
            tuple(context[i] for i in index),
            problem=self.name,
            learning_rate=move.learning_rate,
            move=_restricted_move(move, index),
            graph=_restricted(move.graph, index) if recorded else None,
            memory=self._memory(index),
        )

    def _memory(self, index: tuple[int, ...]) -> Memory:
        """What all conditions at this point share that have this part of the context."""
        if index not in self.memories:
            self.memories[index] = Memory(report=lambda info: self.sweep.note(self.name, info))
        return self.memories[index]


def _check_result(name: str, method: Hypergradient, result: Result, context: Tensors) -> None:
    expected = shapes(context)
    found = shapes(result.grads) if isinstance(result, Result) else type(result).__name__
    fits = isinstance(found, list) and len(found) == len(expected)
    if not fits or any(f not in (None, e) for f, e in zip(found, expected, strict=True)):
        raise MethodError(
            f"problem '{name}': hypergradient={type(method).__name__}, vjp() must return a Result "
            f"with a gradient (or None) of the shape of each tensor of condition.context, "
            f"{expected}, got {found}",
            problem=name,
        )


def _grouped(
    names: Sequence[str], sizes: Sequence[int], flat: Sequence[Tensor]
) -> dict[str, Tensors]:
    grouped, start = {}, 0
    for name, size in zip(names, sizes, strict=True):
        grouped[name] = tuple(flat[start : start + size])
        start += size
    return grouped


def _restricted(graph: Linearization | None, index: Sequence[int]) -> Linearization | None:
    if graph is None:
        return None
    return dataclasses.replace(graph, context=tuple(graph.context[i] for i in index))


def _restricted_move(move: Move, index: Sequence[int]) -> Move:
    if move.context_gradient is None:
        return move
    gradient = tuple(move.context_gradient[i] for i in index)
    return dataclasses.replace(move, context_gradient=gradient)


def _detached(tensors: Tensors) -> Tensors:
    return tuple(t.detach() for t in tensors)


def _leaves(tensors: Tensors) -> Tensors:
    return tuple(t.detach().requires_grad_() for t in tensors)
