"""A program held still for a check: fixed settings, live parameters that are put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mlo.draws import micro_batches
from mlo.engine import Engine
from mlo.evaluation import Evaluation
from mlo.graph import DependencyGraph
from mlo.hypergradients import Hypergradient
from mlo.mover import Mover
from mlo.moves import Move
from mlo.schedule import Schedule
from mlo.setting import Setting
from mlo.sweep import Sweep
from mlo.types import Tensors
from mlo.vectors import dense, filled


class Standing:
    """One problem of an engine and those below it, at the present batches and random state.

    What is written to live parameters is taken back by `kept`. Problems may be given other methods:
    that makes another program, over the same modules.

    Args:
        engine: the engine; before and after, it is as it was.
        name: the problem whose total gradient is looked at.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.tick = engine.tick
        self.given = engine._program
        graph = self.given.graph
        self.use({}, graph.nested)
        involved = {name, *graph.scope(name), *graph.support(name)}
        self.involved = tuple(n for n in graph.names if n in involved)
        self.settings: dict[str, Setting] = {}
        for n in self.involved:
            evaluator = self.given.objectives[n].evaluator
            batches = micro_batches(self.given, engine._streams, n, -1)
            self.settings[n] = evaluator.setting(batches, self.tick, replayable=True)

    @property
    def graph(self) -> DependencyGraph:
        """The graph with the methods that are used now."""
        return self.program.graph

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever happens inside, live parameters are put back."""
        live = [(p, p.detach().clone()) for n in self.given.problems for p in self._live(n)]
        try:
            with self.given.undisturbed():
                yield
        finally:
            with torch.no_grad():
                for p, values in live:
                    p.copy_(values)

    def use(self, methods: Mapping[str, Hypergradient], nested: str) -> None:
        """Let problems answer by other methods, and anticipating ones in another way.

        Raises:
            DeclarationError: (one of its kinds) a method cannot serve there.
        """
        self.program = self.given.answering_by(methods, nested)
        schedule, mover = self.engine.schedule, self.engine._mover
        self.mover = Mover(
            self.program,
            Schedule(self.graph, schedule.timings, lookahead=schedule.lookahead),
            self.engine._streams,
            retain=True,
            restarts=mover.restarts,
        )

    def write(self, name: str, values: Tensors) -> None:
        """Put a problem somewhere."""
        with torch.no_grad():
            for p, t in zip(self._live(name), values, strict=True):
                p.copy_(t)

    def at(self, name: str) -> Tensors:
        """Where a problem stands, as copies."""
        return tuple(p.detach().clone() for p in self._live(name))

    def still(self) -> Sweep:
        """Everybody as they stand; nobody moves, and recorded moves are made on trial."""
        values = {n: self.at(n) for n in self.graph.names}
        rates = self.program.learning_rate
        moves = {n: Move(self.settings[n], rates(n)) for n in self.involved}
        sweep = Sweep(self.program, values, moves, {})
        answering = self.graph.scope(self.name)
        for n in (n for n in self.graph.names if n in answering):
            if "moves" in self.program.problems[n].hypergradient.needs:
                sweep.values[n] = self.mover.trial(sweep, n, self.tick)
        return sweep

    def evaluate(self, sweep: Sweep) -> Evaluation:
        """The loss of the problem in a sweep."""
        own = sweep.values[self.name]
        setting = self.settings[self.name]
        with torch.enable_grad():  # a loss may differentiate inside
            return sweep.total(self.name, own, sweep.values, setting, replay=True)

    def gradient(self, sweep: Sweep) -> Tensors:
        """The total gradient of the problem in a sweep."""
        found = sweep.gradient(self.name, self.settings[self.name], replay=True).values
        return filled(dense(found), sweep.values[self.name])

    def moved(self) -> Sweep:
        """Everybody after the moves on trial that the problem's total gradient goes through."""
        with self.program.undisturbed():
            return self.mover.look(self.name, self.tick)

    def _live(self, name: str) -> list[Tensor]:
        return list(self.program.variables[name].values())
