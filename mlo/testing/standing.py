"""A program held still for a check: fixed settings, live parameters that are put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mlo.draws import micro_batches
from mlo.engine import Engine
from mlo.evaluation import Evaluation
from mlo.hypergradients import Hypergradient
from mlo.moves import Move
from mlo.setting import Setting
from mlo.sweep import Sweep
from mlo.types import Tensors
from mlo.vectors import filled


class Standing:
    """One problem of an engine and those below it, at the present batches and random state.

    What is written to live parameters is taken back by `kept`; inside, every problem may be given
    another method.

    Args:
        engine: the engine; before and after, it is as it was.
        name: the problem whose total gradient is looked at.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.program = engine._program
        self.graph = engine.graph
        self.mover = engine._mover
        self.tick = engine.tick
        involved = {name, *self.graph.scope(name), *self.graph.support(name)}
        self.involved = tuple(n for n in self.graph.names if n in involved)
        self.settings: dict[str, Setting] = {}
        for n in self.involved:
            evaluator = self.program.objectives[n].evaluator
            batches = micro_batches(self.program, self.mover.streams, n, -1)
            self.settings[n] = evaluator.setting(batches, self.tick, replayable=True)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever happens inside, live parameters, moves, states and methods are put back."""
        live = [(p, p.detach().clone()) for n in self.program.problems for p in self._live(n)]
        methods = {n: p.hypergradient for n, p in self.program.problems.items()}
        moves, states, nested = self.mover.moves, self.mover.states, self.graph.nested
        self.mover.moves, self.mover.states = {}, {}
        try:
            with self.program.undisturbed():
                yield
        finally:
            self.use(methods, nested)
            self.mover.moves, self.mover.states = moves, states
            with torch.no_grad():
                for p, values in live:
                    p.copy_(values)

    def use(self, methods: Mapping[str, Hypergradient], nested: str) -> None:
        """Let problems answer by other methods, and anticipating ones in another way."""
        self.graph.nested = nested
        for name, method in methods.items():
            self.program.problems[name].hypergradient = method
        self.mover.states = {}

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
        for n in self.graph.order(self.name):
            if "moves" in self.program.problems[n].hypergradient.needs:
                sweep.values[n] = self.mover._trial(sweep, n, self.tick)
        return sweep

    def evaluate(self, sweep: Sweep) -> Evaluation:
        """The loss of the problem in a sweep."""
        own = sweep.values[self.name]
        setting = self.settings[self.name]
        with torch.no_grad():
            return sweep.total(self.name, own, sweep.values, setting, replay=True)

    def gradient(self, sweep: Sweep) -> Tensors:
        """The total gradient of the problem in a sweep."""
        found = sweep.gradient(self.name, self.settings[self.name], replay=True).values
        return filled(found, sweep.values[self.name])

    def moved(self) -> Sweep:
        """Everybody after the moves on trial that the problem's total gradient goes through."""
        with self.program.undisturbed():
            return self.mover.look(self.name, self.tick)

    def _live(self, name: str) -> list[Tensor]:
        return list(self.program.variables[name].values())
