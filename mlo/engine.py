"""The engine: runs a multilevel program tick by tick."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.callbacks.base import Watchers
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.checkpoints import Checkpoints
from mlo.declared import Levels
from mlo.devices import find_device
from mlo.engine_state import engine_state, load_engine_state
from mlo.errors import (
    DeclarationError,
    EvaluationError,
    listed,
    nearest,
)
from mlo.evaluations import Evaluations
from mlo.graph import DependencyGraph
from mlo.guarding import Guards, checked_guards
from mlo.health import Health
from mlo.incident import Incident
from mlo.loop import Loop
from mlo.mover import Mover
from mlo.plain import check_plain
from mlo.problem import Problem
from mlo.program import compile_program
from mlo.progress import Progress
from mlo.records import MoveRecord, ResponseRecord, StartRecord, TickRecord
from mlo.response import warn_of_failure
from mlo.run_length import at_least_one, run_length
from mlo.run_result import RunResult
from mlo.saving import Saving
from mlo.schedule import Schedule, Timing
from mlo.streams import make_streams
from mlo.tick_guard import TickGuard
from mlo.vectors import dense, filled


class Engine:
    """Runs a multilevel program: a list of problems, lowest first, and the data they read.

    One tick draws one batch of every stream that a due problem reads, shared by all problems that
    move in it, and moves the due problems. The total gradient of a problem goes through the
    responses of all problems below it that depend on it.

    Args:
        problems: the problems, lowest level first. Those in a list of their own are on one level:
            they treat each other as constants and move at once, from where all of them stood. By
            an implicit method those that read each other answer as the equilibrium they are.
        data: stream name -> iterable of batches (any pytree of tensors); an exhausted one starts
            its next epoch.
        lookahead: make lower moves on trial, move the uppers against them, then move the lowers
            for real (the order of DARTS and Learning From Mistakes); by default a problem moves,
            and those above it differentiate through the move it made.
        nested: what of the response of an anticipating problem is kept: `"exact"`, the derivative
            of its total gradient; `"projected"`, without third-order terms (the answers below it
            count as linear); `"partial"`, as if those below did not answer to it. Its own moves
            use the total gradient in every case.
        device: where modules are moved at once and batches as they are drawn; `None` leaves both.
        retain: keep the graph of a move's gradient for the upper problems of the same tick; `False`
            recomputes it, for memory.
        dry_run: evaluate every loss once, on the first batches, so that mistakes show at once;
            nothing moves and the batches are used by the first ticks.
        guards: what is watched, and done, about numbers that are not finite, solves that fail and
            losses that diverge.

    Attributes:
        graph: the dependency graph; print it, or ask it for `to_networkx()` and `to_mermaid()`.
        schedule: when problems move.
        tick: ticks made so far.
        problems: name -> declaration, lowest first.

    Raises:
        DeclarationError: (one of its kinds) the program cannot work.
        EvaluationError: (one of its kinds) a loss failed in the dry run.
        StreamError: a data stream has nothing to give.
    """

    def __init__(
        self,
        problems: Levels,
        data: Mapping[str, Iterable[Any]] | None = None,
        *,
        lookahead: bool = False,
        nested: str = "exact",
        device: torch.device | str | None = None,
        retain: bool = True,
        dry_run: bool = True,
        guards: Guards = Guards(),  # noqa: B008  (frozen)
    ) -> None:
        target = None if device is None else find_device(device)
        if data is not None and not isinstance(data, Mapping):
            raise DeclarationError(
                "Engine(data=...) must be a mapping from stream names to iterables of batches, got "
                f"{type(data).__name__}; write {{'train': loader}}"
            )
        self._program = compile_program(
            problems, data or {}, target, lookahead=lookahead, nested=nested
        )
        timings = {
            name: Timing(p.every, p.repeat, p.warmup, p.accumulate)
            for name, p in self._program.problems.items()
        }
        self.schedule = Schedule(self.graph, timings, lookahead=lookahead)
        self.tick = 0
        self._counts = self.schedule.start()
        self._streams = make_streams(data or {}, target)
        self._mover = Mover(self._program, self.schedule, self._streams, retain=retain)
        self._guard = TickGuard(self._mover, self._streams, checked_guards(guards))
        self._health = Health(tuple(self.problems), self.graph.responding, guards)
        # Drawn now, as the first thing that a plain loop would draw.
        for name, stream in self._streams.items():
            stream.present(self.schedule.micro_batches(name))
        if dry_run:
            with self._program.undisturbed():
                self._mover.dry_run()

    def __str__(self) -> str:
        """The graph, with kinds, costs and what is left out of nested levels, and the schedule."""
        return f"{self.graph}\n\n{self.schedule}"

    @property
    def graph(self) -> DependencyGraph:
        """The dependency graph."""
        return self._program.graph

    @property
    def problems(self) -> Mapping[str, Problem]:
        """Name -> declaration, lowest first."""
        return self._program.problems

    def step(self, on_move: Callable[[MoveRecord], None] | None = None) -> TickRecord:
        """Make one tick and return its record; `on_move` is told of every move as it is made.

        Unlike `run`, it does not look whether a module was changed since the engine was built.

        Raises:
            EvaluationError: (one of its kinds) a loss failed.
            NonfiniteError: a NaN or an infinity appeared; nothing of that move was applied.
            SolveError: a whole tick was made, but solves fail or a loss diverges (see `Guards`).
            StreamError: a data stream has nothing to give.
        """
        check_mode()
        started = time.perf_counter()
        plan = self.schedule.plan(self.tick, self._counts)
        with self._program.occupation.by("a tick"):
            for name, draws in plan.draws.items():
                self._streams[name].advance(draws)
            made = self._guard.make(plan, on_move)
        self._counts = dict(plan.counts)
        self.tick += 1
        self._health.see(made)
        seconds = time.perf_counter() - started
        return TickRecord(plan.tick, made.moves, seconds, made.taken_back)

    @property
    def incident(self) -> Incident | None:
        """The last move that met a NaN or an infinity, for `mlo.replay`."""
        return self._guard.incident

    def hypergradient(self, name: str) -> dict[str, Tensor]:
        """The total gradient of a problem at the present point on the present batch.

        With `lookahead` the problems below make their trial moves first; without it, the latest
        recorded moves are differentiated through, or trial moves before the first. Nothing moves:
        parameters, buffers, optimizers and random states are as before, whatever happens.

        Args:
            name: a problem.

        Returns:
            Name -> tensor, for the problem's variables; zeros where nothing depends.

        Raises:
            DeclarationError: there is no such problem.
            EvaluationError: (one of its kinds) a loss failed or cannot be differentiated.

        Warns:
            HypergradientWarning: a linear solve on the way failed; the message says how.
        """
        values, responses = self.total_gradient(name)
        for response in responses:
            warn_of_failure(f"hypergradient('{name}')", response, stacklevel=2)
        return values

    def total_gradient(self, name: str) -> tuple[dict[str, Tensor], tuple[ResponseRecord, ...]]:
        """`hypergradient` with the records of the responses that it went through, and no warning.

        Raises:
            DeclarationError: there is no such problem.
            EvaluationError: (one of its kinds) a loss failed or cannot be differentiated.
        """
        if name not in self.problems:
            raise DeclarationError(
                f"hypergradient('{name}'): no problem is called that"
                f"{nearest(name, self.problems)} (problems: {listed(self.problems)})"
            )
        check_mode()
        self._program.check_unchanged()
        with self._program.undisturbed():
            values, responses = self._mover.total_gradient(name, self.tick)
        own = self._program.variables[name]
        return dict(
            zip(own, filled(dense(values), self._program.present(name)), strict=True)
        ), responses

    def run(
        self,
        ticks: int | None = None,
        *,
        epochs: int | None = None,
        callbacks: Sequence[object] = (),
        evaluate: Mapping[str, tuple[Callable[..., Any], int]] | None = None,
        record_every: int = 1,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
    ) -> RunResult:
        """Make `ticks` ticks, or as many as complete `epochs` epochs.

        Args:
            ticks: how many ticks.
            epochs: epochs of the first stream that has a length, from the lowest problem on. Give
                either this or `ticks`.
            callbacks: what watches the run (see `mlo.Callback`); they are called in this order.
            evaluate: name -> (function, n): called after every n-th tick and after the last one,
                be that the planned one or the one at which a callback stopped the run.
                The function's argument names are the problems whose modules it is handed, in
                evaluation mode, without gradients; it returns a number or {metric: number or
                vector [N]}, draws on no random state of the run, and leaves the modules' modes as
                they were. Of a vector its mean is the metric; its distribution is recorded too.
            record_every: keep every n-th tick record in the result.
            checkpoints: where and how often to save the state of the run.
            resume: go on from the newest of these states, if there is one; `ticks` and `epochs`
                then count from where that run began.

        Returns:
            Records, evaluations and how it ended. A callback that returns `Stop` ends it early.

        Raises:
            CheckpointError: a state cannot be saved, or not be taken up (see `load`).
            Interrupted: while states are saved, SIGTERM or Ctrl-C came; the last tick was
                finished and saved.
            DeclarationError: neither or both of `ticks` and `epochs`, or an evaluation that reads
                what is not a problem, or a callback without any of a callback's methods.
            EvaluationError: (one of its kinds) a loss or an evaluation failed.
            StreamError: a data stream has nothing to give.
        """
        check_mode()
        self._program.check_unchanged()
        evaluations = Evaluations(self._program, evaluate or {})
        watchers = Watchers(callbacks)
        kept = at_least_one("record_every", record_every)
        if resume and checkpoints is None:
            raise DeclarationError(
                "Engine.run(resume=True) needs checkpoints=, the folder with the states of the run"
            )
        saving = Saving(self, checkpoints)
        length = functools.partial(
            run_length, schedule=self.schedule, streams=self._streams, counts=self._counts
        )
        # Before anything is loaded, so that a wrong number is a mistake that changes nothing.
        total = length(ticks, epochs, tick=self.tick)
        progress = saving.resumed(watchers, ticks, epochs, resume=resume)
        if progress is None:
            progress = Progress(total, epochs)
        start = StartRecord(
            progress.total, tuple(self.problems), str(self.graph), self.graph.plain(), progress.done
        )
        loop = Loop(self.step, watchers, evaluations, saving, kept, self._health.summary)
        return loop.run(start, progress)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run changes, between two ticks, as plain values.

        Parameters, buffers, optimizers, schedulers, recorded moves, states of methods, schedule,
        positions of the data streams, and random states of Python, NumPy and PyTorch on all
        devices. Tensors are those of the engine, as in `torch.nn.Module.state_dict`: save them, or
        copy them, before the next tick.

        Raises:
            CheckpointError: a part cannot be held by a file; the message names it.
        """
        state = engine_state(self)
        check_plain(state, "state")
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, other_versions: bool = False) -> None:
        """Go on from a state, exactly: every later bit is that of the engine which it is of.

        Args:
            state: what `state_dict` returned, of an engine that was built by the same code.
            other_versions: take it although other versions of this library or of torch made it.

        Raises:
            CheckpointError: it is of another program or version (the message lists the
                differences), or does not come back as it was; the engine is then as it was before.

        Warns:
            ResumeWarning: a data stream cannot go on where it was.
        """
        load_engine_state(self, state, other_versions=other_versions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` to a file, in one step and with a checksum of the whole.

        Raises:
            CheckpointError: it cannot be written; what was there before is untouched.
        """
        write_checkpoint(path, {"engine": self.state_dict()})

    def load(self, path: str | os.PathLike[str], *, other_versions: bool = False) -> None:
        """Go on from a file of `save`, or from a state that a run has saved; see `load_state_dict`.

        Opening the file never executes code in it.

        Raises:
            CheckpointError: it is absent, damaged, or of another program or version.
        """
        state = read_checkpoint(path).get("engine", {})
        self.load_state_dict(state, other_versions=other_versions)


def check_mode() -> None:
    """Autograd is not switched off for good.

    Raises:
        EvaluationError: it is, by `torch.inference_mode`.
    """
    if torch.is_inference_mode_enabled():
        raise EvaluationError(
            "the engine differentiates, which torch.inference_mode() forbids; call it outside"
        )
