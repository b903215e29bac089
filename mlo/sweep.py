"""One computation of a total gradient: where everybody stands, and who responds how.

A sweep holds values, one set of tensors a problem, and the moves that are differentiated through.
Trial moves change the sweep and nothing else; live tensors are only read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mlo.circle import Circle
from mlo.condition import Condition
from mlo.differentiation import differentiate
from mlo.evaluation import Evaluation, mean
from mlo.hypergradients import Hypergradient, Result
from mlo.linearization import Linearization, Memory
from mlo.moves import Begun, Move
from mlo.once import Kept, Recording
from mlo.program import Program
from mlo.records import Info, ResponseRecord, together
from mlo.response import check_result, respond
from mlo.setting import Setting
from mlo.site import Site
from mlo.types import PartialTensors, Tensors, Values
from mlo.vectors import dense, detached, leaves, norm, plus
from mlo.watch import UNWATCHED, Watch


@dataclasses.dataclass(frozen=True)
class Gradient:
    """A total gradient, the evaluation that it was taken from, and its graph where kept."""

    values: PartialTensors
    evaluation: Evaluation
    graph: Linearization | None = None
    kept: Kept | None = None
    context_gradient: PartialTensors | None = None

    @functools.cached_property
    def norm(self) -> Tensor:
        """The Euclidean norm of the total gradient, 0-dim."""
        return norm([g.detach() for g in self.values if g is not None])


class Sweep:
    """Values, moves and method states of one computation.

    Args:
        program: the compiled declaration.
        values: problem -> where it stands.
        moves: problem -> the move (or only its setting) that its response is taken at.
        states: problem -> state of its method; new states replace these here and nowhere else.

    Attributes:
        watch: is told of what is computed.
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
        self.watch: Watch = UNWATCHED
        self._solves: dict[tuple[str, str], list[Info]] = {}

    def as_of(self, move: Move) -> Sweep:
        """The sweep in which a recorded move was made; what it finds is found by this one."""
        values, moves = {**self.values, **move.reads}, {**self.moves, **move.below}
        then = Sweep(self.program, values, moves, {})
        then.states, then._solves, then.watch = self.states, self._solves, self.watch
        return then

    def note(self, name: str, method: str, info: Info) -> None:
        """Remember how a solve for the response of `name` went."""
        self._solves.setdefault((name, method), []).append(info)

    @property
    def responses(self) -> tuple[ResponseRecord, ...]:
        """How the responses went so far, one record a problem."""
        return tuple(
            ResponseRecord(name, method, together(infos), len(infos))
            for (name, method), infos in self._solves.items()
        )

    def answer(
        self,
        name: str,
        method: Hypergradient,
        make: Callable[[], Condition],
        cotangent: Tensors,
    ) -> Result:
        """What a method says of a condition, its state kept and its word noted."""
        condition = make()
        if name not in self.states:
            with torch.no_grad():  # states are plain tensors
                self.states[name] = method.init(make())
        self.watch.answering(name)
        result = method.vjp(condition, cotangent, self.states[name])
        check_result(name, method, result, condition.params, condition.context)
        self.watch.answered(name, method, cotangent, result, condition)
        self.states[name] = result.state
        self.note(name, type(method).__name__, result.info)
        return result

    def memory(self, name: str, method: Hypergradient) -> Memory:
        """What the conditions of one response share."""
        # It must not refer to the site, which holds it: cycles wait for the collector.
        return Memory(report=functools.partial(self.note, name, type(method).__name__))

    def gradient(
        self,
        name: str,
        setting: Setting,
        *,
        graph: bool = False,
        share: bool = False,
        context: bool = False,
        replay: bool = False,
    ) -> Gradient:
        """The total gradient of the loss of `name` with respect to its own variables.

        Args:
            name: whose.
            setting: under what.
            graph: keep the gradient's graph (for a staged problem and one batch).
            share: keep what the loss computes by `once` (for a staged problem and one batch).
            context: take the gradient with respect to the context in the same pass.
            replay: draw the random numbers of the setting again.
        """
        own = leaves(self.values[name])
        env = dict(self.values)
        graph = graph and len(setting.batches) == 1
        # What else is taken from this pass must go through all of the loss.
        share = share and len(setting.batches) == 1 and not graph and not context
        outside: Tensors = ()
        if graph or share or context:
            for read in self.program.graph.carrying(name):
                env[read] = leaves(self.values[read])
            outside = self.context(name, env)
        wrt = (*own, *outside) if context else own
        recording = Recording(name, own, self.program.devices) if share else None
        with torch.enable_grad():
            if len(setting.batches) > 1:
                env = self._answered(name, own, env)
                evaluation, grads = self._accumulated(name, env, wrt, setting, replay=replay)
            else:
                with contextlib.nullcontext() if recording is None else recording.active():
                    evaluation = self.total(name, own, env, setting, replay=replay)
                self.watch.loss(name, evaluation.value)
                grads = differentiate(name, [evaluation.loss], wrt, create_graph=graph)
        values, rest = grads[: len(own)], grads[len(own) :]
        return Gradient(
            values,
            evaluation,
            Linearization(own, outside, values) if graph else None,
            None if recording is None else recording.kept(outside),
            rest if context else None,
        )

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
        answered = {**env, name: detached(own) if partial else own}
        for group in self.program.graph.groups(name):
            answered.update(self._respond(group, answered))
        answered[name] = own
        return answered

    def _seen(self, name: str, env: Values) -> dict[str, Tensors]:
        """What the loss of `name` is handed; constants detached."""
        cut = self.program.graph.nodes[name].constant
        reads = self.program.objectives[name].reads
        return {read: detached(env[read]) if read in cut else env[read] for read in reads}

    def _accumulated(
        self, name: str, env: Values, wrt: Tensors, setting: Setting, *, replay: bool
    ) -> tuple[Evaluation, PartialTensors]:
        """Loss and gradient over the micro-batches, one graph at a time.

        The cotangents of what the loss reads are added up first, and pulled back through the
        responses once, so that the number of solves is that of a single batch.
        """
        seen = self._seen(name, env)
        heads = [t for tensors in seen.values() for t in tensors if t.requires_grad]
        flat = leaves(tuple(heads))
        fresh = iter(flat)
        values = {
            read: tuple(next(fresh) if t.requires_grad else t for t in tensors)
            for read, tensors in seen.items()
        }
        parts: list[Evaluation] = []
        sums: PartialTensors = (None,) * len(flat)

        def add(part: Evaluation) -> None:
            nonlocal sums
            self.watch.loss(name, part.value)
            sums = plus(sums, dense(differentiate(name, [part.loss], flat)))
            parts.append(dataclasses.replace(part, loss=part.value))

        self.program.objectives[name].visit(values, setting, add, replay=replay)
        pairs = [(h, s / len(parts)) for h, s in zip(heads, sums, strict=True) if s is not None]
        pulled = differentiate(name, [h for h, _ in pairs], wrt, [s for _, s in pairs])
        return mean(parts), pulled

    def condition(self, name: str, move: Move) -> Condition:
        """The condition of `name` at a move, with respect to what hypergradients may reach."""
        carrying = self.program.graph.carrying(name)
        names = self.program.graph.context(name)
        context = self.context(name, self.values)
        needed = tuple(read in carrying for read in names for _ in self.values[read])
        return Site(self, name, move).condition(self.values[name], context, needed)

    def context(self, name: str, env: Values) -> Tensors:
        """The tensors of all problems in the context of `name`."""
        return tuple(t for read in self.program.graph.context(name) for t in env[read])

    def _respond(self, group: tuple[str, ...], env: Values) -> Values:
        """The responses of one problem, or of several that read each other."""
        if len(group) > 1:
            circle = Circle(self, group)
            found = respond(circle, circle.params(), circle.context(env))
            return circle.apart(found)
        (name,) = group
        site = Site(self, name, self.moves[name])
        return {name: respond(site, self.values[name], self.context(name, env))}
