"""Moves: real ones on live parameters, trial ones on copies, and what is kept of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mlo.advance import advance
from mlo.draws import micro_batches
from mlo.hypergradients import Hypergradient
from mlo.moves import Begun, Move, past_of
from mlo.plain import copied
from mlo.program import Program
from mlo.records import MoveRecord, ResponseRecord
from mlo.restarts import Restarts
from mlo.schedule import Schedule
from mlo.schedulers import Schedulers
from mlo.setting import Setting
from mlo.snapshot import Memory
from mlo.standpoints import Standpoints
from mlo.streams import Stream
from mlo.sweep import Gradient, Sweep
from mlo.types import PartialTensors, Tensors
from mlo.update import needs_closure, trial_copy
from mlo.watch import UNWATCHED, Place, Watch


class Mover:
    """Makes the moves of a program and remembers what hypergradients need of them.

    Args:
        program: the compiled declaration.
        schedule: who moves when.
        streams: where batches come from.
        retain: see `Engine`.
        restarts: who has moved how often, where that is known already.
    """

    def __init__(
        self,
        program: Program,
        schedule: Schedule,
        streams: Mapping[str, Stream],
        *,
        retain: bool,
        restarts: Restarts | None = None,
    ) -> None:
        self.program = program
        self.schedule = schedule
        self.streams = streams
        self.retain = retain
        self.moves: dict[str, Move] = {}
        self.states: dict[str, Any] = {}
        self._points = Standpoints(program)
        self.restarts = Restarts(program) if restarts is None else restarts
        self._schedulers = Schedulers(streams)
        self.watch: Watch = UNWATCHED

    def move(
        self, name: str, tick: int, *, due: Sequence[str], later: Sequence[str]
    ) -> Iterator[MoveRecord]:
        """Move `name` for real, `repeat` times; yields a record after each update.

        Args:
            name: the problem.
            tick: the present tick.
            due: all problems that move in this tick.
            later: those that move after this one, which may differentiate through this move.
        """
        graph = self.program.graph
        lookahead = self.schedule.lookahead
        alone = self.program.problems[name].hypergradient.reach == 1
        # With lookahead, those above always see a trial move of a problem that is always due.
        unseen = lookahead and self.schedule.always_due(name)
        remembered = name in graph.responding and not (unseen and alone)
        wanted = any(name in graph.scope(upper) for upper in later) and not lookahead
        if any(peer in graph.peers(name) for peer in later):
            self._points.leave(name)
        bare = name in graph.responding and not graph.support(name)
        bare = bare and name not in self.program.starts
        repeat = self.program.problems[name].repeat
        for update in range(repeat):
            kept = remembered and (update == repeat - 1 or not alone)
            self.watch.begin(Place(tick, name, update, tuple(due), bare))
            record = self._update(name, tick, update, due, kept=kept, graph=wanted and kept)
            self.watch.end()
            yield record

    def _update(
        self,
        name: str,
        tick: int,
        update: int,
        due: Sequence[str],
        *,
        kept: bool,
        graph: bool,
    ) -> MoveRecord:
        """One update of a real move: where it begins, the moves on trial below it, its step."""
        problem = self.program.problems[name]
        last = update == problem.repeat - 1
        sweep = self._standing(name, recorded=kept and self.program.records_moves(name))
        begun = self._begin(sweep, name, tick) if update == 0 else None
        write = functools.partial(self.restarts.write, name, sweep.values[name])
        self._make_ready(sweep, name, tick, due)
        rate = float(problem.optimizer.param_groups[0].get("lr", math.nan))
        gradient, move = advance(
            sweep,
            name,
            self._setting(name, tick, update),
            problem.optimizer,
            list(self.program.variables[name].values()),
            graph=self.retain and graph,
            kept=kept,
            begun=begun,
            past=self._past(sweep, name, update),
            ready=write if begun is not None else None,
            watch=self.watch,
        )
        self._points.arrive(name)
        self.restarts.made[name] += last
        self.states.update(sweep.states)
        self.program.objectives[name].evaluator.write_buffers(
            gradient.evaluation.buffers, (name, *problem.updates_buffers)
        )
        if kept:
            self.moves[name] = move
        if (last or kept) and name in self.program.graph.responding:
            self._observe(name, move, sweep)
        if last:
            self._schedulers.step(problem, gradient.evaluation)
        return _record(name, tick, gradient, rate, sweep)

    def total_gradient(
        self, name: str, tick: int
    ) -> tuple[PartialTensors, tuple[ResponseRecord, ...]]:
        """The total gradient of `name` and what it went through; nothing moves."""
        sweep = self.look(name, tick)
        values = sweep.gradient(name, self._setting(name, tick, -1)).values
        return values, sweep.responses

    def look(self, name: str, tick: int) -> Sweep:
        """The sweep in which somebody looks at `name` between ticks."""
        sweep = self._standing(name, copied=True)
        self._make_ready(sweep, name, tick, None)
        return sweep

    def dry_run(self) -> None:
        """Evaluate every loss once, at copies, so that mistakes show before anything moves."""
        for name in self.program.problems:
            values = {
                n: tuple(t.clone().requires_grad_() for t in self.program.present(n))
                for n in self.program.problems
            }
            setting = self._setting(name, 0, -1)
            objective = self.program.objectives[name]
            objective({read: values[read] for read in objective.reads}, setting)
            if name in self.program.starts:
                sweep = Sweep(self.program, values, {}, {})
                self._begin(sweep, name, 0)

    def remake(self, place: Place) -> tuple[Gradient, Tensors]:
        """Evaluate an update of a real move as it is made, step a copy, and move nothing.

        Returns:
            Loss and total gradient, and where the step leads.
        """
        name, problem = place.name, self.program.problems[place.name]
        sweep = self._standing(name, copied=True)
        begun = self._begin(sweep, name, place.tick) if place.update == 0 else None
        live = list(self.program.variables[name].values())
        optimizer, params = trial_copy(problem.optimizer, live, sweep.values[name])
        if begun is not None:
            self.restarts.renew(name, optimizer)
        self._make_ready(sweep, name, place.tick, place.due)
        setting = self._setting(name, place.tick, place.update)
        gradient, _ = advance(sweep, name, setting, optimizer, params, graph=False, kept=False)
        return gradient, tuple(p.detach() for p in params)

    def memory(self) -> Memory:
        """What is remembered besides the problems themselves, in copies where that may change."""
        return Memory(
            {name: move.without_graph() for name, move in self.moves.items()},
            copied(self.states),
            dict(self.restarts.made),
            dict(self._schedulers.heard),
            self._points.kept(),
        )

    def recall(self, memory: Memory) -> None:
        """Remember that instead."""
        self.moves = dict(memory.moves)
        self.states = copied(dict(memory.states))
        self.restarts.made = dict(memory.made)
        self._schedulers.heard = dict(memory.heard)
        self._points.put(memory.standpoints)

    def end_tick(self) -> None:
        """Let go of what lives no longer than a tick."""
        self._points.end_tick()
        self.moves = {name: move.without_graph() for name, move in self.moves.items()}

    def _standing(self, name: str, *, copied: bool = False, recorded: bool = False) -> Sweep:
        values = self._points.values(name, copied=copied, recorded=recorded)
        return Sweep(self.program, values, self.moves, self.states)

    def _make_ready(self, sweep: Sweep, name: str, tick: int, due: Sequence[str] | None) -> None:
        """Make the moves on trial that `name` differentiates through."""
        graph = self.program.graph
        trials, answering = self._on_trial(name, due)
        support = graph.support(name)
        # Those that others answer to begin first, so that these see where.
        uppers = [n for n in support if n in trials and graph.scope(n)]
        begun = {n: self._begin(sweep, n, tick) for n in uppers}
        tried: dict[str, Tensors] = {}
        level = 0
        for lower in support:
            if graph.level[lower] > level:
                sweep.values.update(tried)
                level = graph.level[lower]
            if lower in trials:
                start = begun[lower] if lower in begun else self._begin(sweep, lower, tick)
                tried[lower] = self.trial(sweep, lower, tick, start)
            elif lower in answering and lower not in sweep.moves:
                setting = self._setting(lower, tick, -1)
                sweep.moves[lower] = Move(setting, self.program.learning_rate(lower))
        sweep.values.update(tried)

    def _on_trial(self, name: str, due: Sequence[str] | None) -> tuple[set[str], set[str]]:
        """Who moves on trial before `name` does, and whose response is then asked for.

        With `lookahead` those are all problems below it that it reads at any remove and that are
        still to move in this tick; without it, those that have no recorded move yet and need one.
        """
        graph = self.program.graph
        trials: set[str] = set()
        answering = set(graph.scope(name))
        for lower in reversed(graph.support(name)):
            moves = (due is None or lower in due) and lower not in self._points.moved
            ahead = self.schedule.lookahead and moves
            recorded = "moves" in self.program.problems[lower].hypergradient.needs
            if ahead or (recorded and lower in answering and lower not in self.moves):
                trials.add(lower)
                answering |= graph.scope(lower)
        return trials, answering

    def trial(self, sweep: Sweep, name: str, tick: int, begun: Begun | None = None) -> Tensors:
        """Where `name` gets by a move on a copy of its optimizer; its move stays with the sweep."""
        problem = self.program.problems[name]
        live = list(self.program.variables[name].values())
        stood = sweep.values[name] if begun is None else begun.own
        optimizer, params = trial_copy(problem.optimizer, live, sweep.values[name])
        if begun is not None:
            self.restarts.renew(name, optimizer)
        alone = problem.hypergradient.reach == 1
        for update in range(problem.repeat):
            kept = update == problem.repeat - 1 or not alone
            _, move = advance(
                sweep,
                name,
                self._setting(name, tick, update),
                optimizer,
                params,
                graph=self.retain and kept,
                kept=kept,
                begun=begun,
                past=self._past(sweep, name, update),
                trial=True,
                watch=self.watch,
            )
            begun = None
            sweep.values[name] = tuple(p.detach().clone() for p in params)
            sweep.moves[name] = move
        reached, sweep.values[name] = sweep.values[name], stood
        return reached

    def _past(self, sweep: Sweep, name: str, update: int) -> tuple[Move, ...]:
        """The recorded moves that lead to the given update, as far as they are differentiated."""
        reach = self.program.problems[name].hypergradient.reach
        return past_of(sweep.moves.get(name), reach, first=update == 0)

    def _begin(self, sweep: Sweep, name: str, tick: int) -> Begun | None:
        batches = micro_batches(self.program, self.streams, name, 0)
        begun = self.restarts.begin(sweep, name, batches, tick)
        if begun is not None:
            self.watch.begun(name, sweep.values[name])
        return begun

    def _setting(self, name: str, tick: int, update: int) -> Setting:
        """The setting of the given update of `name` in this tick (-1: the tick's own batch)."""
        replayable = name in self.program.graph.responding or needs_closure(
            self.program.problems[name].optimizer
        )
        evaluator = self.program.objectives[name].evaluator
        batches = micro_batches(self.program, self.streams, name, update)
        stood = self._points.buffers(name)
        return evaluator.setting(batches, tick, replayable=replayable, stood=stood)

    def _observe(self, name: str, move: Move, sweep: Sweep) -> None:
        """Show a real move to the method of its problem, if it looks at moves at all."""
        method = self.program.problems[name].hypergradient
        if type(method).observe is Hypergradient.observe:
            return
        with torch.no_grad():  # states are plain tensors
            condition = sweep.condition(name, move)
            if name not in self.states:
                self.states[name] = method.init(condition)
            self.states[name] = method.observe(condition, self.states[name])


def _record(
    name: str, tick: int, gradient: Gradient, learning_rate: float, sweep: Sweep
) -> MoveRecord:
    evaluation = gradient.evaluation
    return MoveRecord(
        problem=name,
        tick=tick,
        loss=evaluation.value,
        metrics=evaluation.metrics,
        gradient_norm=gradient.norm,
        learning_rate=learning_rate,
        responses=sweep.responses,
    )
