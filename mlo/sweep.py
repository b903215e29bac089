"""One computation of a total gradient: where everybody stands, and who responds how.

A sweep holds values, one set of tensors a problem, and the moves that are differentiated through.
Trial moves change the sweep and nothing else; live tensors are only read.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mlo.condition import Condition, Linearization, Memory
from mlo.differentiation import differentiate
from mlo.evaluation import Evaluation, mean
from mlo.moves import Begun, Move
from mlo.program import Program
from mlo.records import Info, ResponseRecord, together
from mlo.response import check_result, respond
from mlo.setting import Setting
from mlo.types import PartialTensors, Tensors, Values
from mlo.vectors import dense, filled, plus


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
        self,
        name: str,
        setting: Setting,
        *,
        graph: bool = False,
        context: bool = False,
        replay: bool = False,
    ) -> Gradient:
        """The total gradient of the loss of `name` with respect to its own variables.

        Args:
            name: whose.
            setting: under what.
            graph: keep the gradient's graph (for a staged problem and one batch).
            context: take the gradient with respect to the context in the same pass.
            replay: draw the random numbers of the setting again.
        """
        own = _leaves(self.values[name])
        env = dict(self.values)
        graph = graph and len(setting.batches) == 1
        outside: Tensors = ()
        if graph or context:
            for read in self.program.graph.carrying(name):
                env[read] = _leaves(self.values[read])
            outside = self._context(name, env)
        wrt = (*own, *outside) if context else own
        with torch.enable_grad():
            if len(setting.batches) > 1:
                env = self._answered(name, own, env)
                evaluation, grads = self._accumulated(name, env, wrt, setting, replay=replay)
            else:
                evaluation = self.total(name, own, env, setting, replay=replay)
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
        values = self._seen(name, self._answered(name, own, env, partial=partial))
        return self.program.objectives[name](values, setting, replay=replay)

    def visit(
        self, name: str, env: Values, setting: Setting, visitor: Callable[[Tensor], None]
    ) -> None:
        """Replay the loss of a staged problem one micro-batch at a time, each over their number."""
        count = len(setting.batches)
        self.program.objectives[name].visit(
            self._seen(name, env), setting, lambda part: visitor(part.loss / count), replay=True
        )

    def begin(self, name: str, begun: Begun, env: Values, *, replay: bool) -> Tensors:
        """Where `name` begins anew, given those that its start reads."""
        start = self.program.starts[name]
        env = {**env, name: begun.own}
        values = {read: env[read] for read in start.reads}
        return start(values, begun.setting, begun.own, replay=replay)

    def _answered(
        self, name: str, own: Tensors, env: Values, *, partial: bool = False
    ) -> dict[str, Tensors]:
        """`env` with the scope of `name` replaced by responses, and `name` by `own`."""
        answered = {**env, name: _detached(own) if partial else own}
        for other in self.program.graph.order(name):
            answered[other] = self._respond(other, answered)
        answered[name] = own
        return answered

    def _seen(self, name: str, env: Values) -> dict[str, Tensors]:
        """What the loss of `name` is handed; constants detached."""
        cut = self.program.graph.nodes[name].constant
        reads = self.program.objectives[name].reads
        return {read: _detached(env[read]) if read in cut else env[read] for read in reads}

    def _accumulated(
        self, name: str, env: Values, wrt: Tensors, setting: Setting, *, replay: bool
    ) -> tuple[Evaluation, PartialTensors]:
        """Loss and gradient over the micro-batches, one graph at a time.

        The cotangents of what the loss reads are added up first, and pulled back through the
        responses once, so that the number of solves is that of a single batch.
        """
        seen = self._seen(name, env)
        heads = [t for tensors in seen.values() for t in tensors if t.requires_grad]
        flat = _leaves(tuple(heads))
        fresh = iter(flat)
        leaves = {
            read: tuple(next(fresh) if t.requires_grad else t for t in tensors)
            for read, tensors in seen.items()
        }
        parts: list[Evaluation] = []
        sums: PartialTensors = (None,) * len(flat)

        def add(part: Evaluation) -> None:
            nonlocal sums
            sums = plus(sums, dense(differentiate(name, [part.loss], flat)))
            parts.append(dataclasses.replace(part, loss=part.value))

        self.program.objectives[name].visit(leaves, setting, add, replay=replay)
        pairs = [(h, s / len(parts)) for h, s in zip(heads, sums, strict=True) if s is not None]
        pulled = differentiate(name, [h for h, _ in pairs], wrt, [s for _, s in pairs])
        return mean(parts), pulled

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
        self.begun = move.begun if "moves" in self.method.needs and move.step else None
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
        check_result(self.name, self.method, result, condition.context)
        self.sweep.states[self.name] = result.state
        self.sweep.note(self.name, result.info)
        found = result.grads
        if self.begun is not None:
            count = sum(needed)
            found = self._through_start(condition, found[:count], found[count:], needed, cotangent)
        grads = iter(found)
        return tuple(next(grads) if need else None for need in needed)

    def _through_start(
        self,
        condition: Condition,
        direct: PartialTensors,
        answered: PartialTensors,
        needed: Sequence[bool],
        v: Tensors,
    ) -> PartialTensors:
        """Add the route through the start s(c): ``(ds/dc)^T (dw'/ds)^T v``.

        Args:
            condition: of the move.
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
            env.update({n: _leaves(env[n]) for n in names})
            start = sweep.begin(self.name, move.begun, env, replay=True)
            leaves = [
                t for t, need in zip(sweep._context(self.name, env), needed, strict=True) if need
            ]
            routed = differentiate(self.name, start, leaves, s_bar)
        return plus(direct, routed)

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

        count = len(index)
        chosen = tuple(context[i] for i in index)

        def placed(w: Tensors, c: Tensors) -> tuple[Tensors, Values]:
            full = list(context)
            for i, x in zip(index, c[:count], strict=True):
                full[i] = x
            if self.begun is not None:  # w is where the start led, and a shift from there
                w = tuple(a + (s - s.detach()) for a, s in zip(w, c[count:], strict=True))
            return w, {**values, **_grouped(names, sizes, full)}

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
            self.memories[index] = Memory(report=functools.partial(self.sweep.note, self.name))
        return self.memories[index]


def _grouped(
    names: Sequence[str], sizes: Sequence[int], flat: Sequence[Tensor]
) -> dict[str, Tensors]:
    grouped, start = {}, 0
    for name, size in zip(names, sizes, strict=True):
        grouped[name] = tuple(flat[start : start + size])
        start += size
    return grouped


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


def _detached(tensors: Tensors) -> Tensors:
    return tuple(t.detach() for t in tensors)


def _leaves(tensors: Tensors) -> Tensors:
    return tuple(t.detach().requires_grad_() for t in tensors)
