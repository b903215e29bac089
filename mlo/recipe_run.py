"""Running a recipe: every stage of every repetition, with progress, records and what they leave."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.console

from mlo.callbacks import Console, Recorder
from mlo.callbacks.board import Board, new_board
from mlo.carry import Carry
from mlo.checkpoints import Checkpoints
from mlo.configuration import RecipeConfig
from mlo.errors import MloError, described
from mlo.metrics import Metric, summary
from mlo.recipe import Recipe, Setup, Stage, ready_stages
from mlo.run_folder import RunFolder
from mlo.run_result import RunResult
from mlo.stage_folder import StageFolder
from mlo.threads import threads

_PAUSE = 30.0
"""Seconds between two saved states of a stage."""

Watch = Callable[[StageFolder], Sequence[object]]
"""Makes more callbacks for a stage, given its folder."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Where a run of a recipe writes and draws.

    Attributes:
        console: the terminal, or what stands for it.
        folder: the folder of the run; None to write nothing.
        quiet: show no progress.
        watch: makes more callbacks for every stage that has a folder; None for no more.
        save_every: ticks between two saved states; None saves about twice a minute.
        other_versions: go on with states that other versions of the software have made.
    """

    console: rich.console.Console = dataclasses.field(default_factory=rich.console.Console)
    folder: RunFolder | None = None
    quiet: bool = False
    watch: Watch | None = None
    save_every: int | None = None
    other_versions: bool = False


def run_recipe(recipe: Recipe[Any], config: RecipeConfig, job: Job) -> list[Metric]:
    """Run all stages of all repetitions.

    Stages that the folder says are over are not run again: their metrics and what they handed on
    are taken from there. A stage that was cut off goes on from the newest of its states, exactly
    as if nothing had happened; where it has none yet, it is begun again.

    Args:
        recipe: what to run.
        config: its settings.
        job: where to write and draw.

    Returns:
        The final metrics, seed by seed and stage by stage.

    Raises:
        MloError: (one of its kinds) a stage failed; the folder holds what was made until then.
    """
    stages = ready_stages(recipe, config)
    metrics: list[Metric] = []
    ticks = config.seeds * sum(stage.ticks for stage in stages)
    board = new_board(recipe.name, ticks, console=job.console, quiet=job.quiet)
    with threads(config.threads), board:
        for seed in config.seed_range:
            carry = Carry()
            for stage in stages:
                carry, found = _Part(stage, config, seed, job, board).run(carry)
                metrics += found
                if job.folder is not None:
                    job.folder.write_metrics(metrics)
    return metrics


def carry_out(recipe: Recipe[Any], config: RecipeConfig, job: Job) -> list[Metric]:
    """Run a recipe in its folder, and write there how it ended, however it did.

    Args:
        recipe: what to run.
        config: its settings.
        job: where to write and draw; its folder has begun or been resumed.

    Returns:
        The final metrics; they are in `results.json` too.

    Raises:
        MloError: (one of its kinds) a stage failed.
    """
    with _told(job.folder):
        metrics = run_recipe(recipe, config, job)
        if job.folder is not None:
            about = recipe.about(config)
            told = {} if about is None else {"about": about}
            found = {"recipe": recipe.name, **told, "metrics": summary(metrics)}
            job.folder.write_results(found)
    return metrics


@contextlib.contextmanager
def _told(folder: RunFolder | None) -> Iterator[None]:
    """Write to the folder how what is done inside ends; an error is raised whatever comes of it."""
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        try:
            if folder is not None:
                folder.end(status, described(error), time.monotonic() - started)
        except MloError as another:  # a full disk, which may be what ended it
            error.add_note(f"and how it ended could not be written: {another}")
        raise
    if folder is not None:
        folder.end("completed", "all stages were run", time.monotonic() - started)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One stage of one repetition."""

    stage: Stage[Any]
    config: RecipeConfig
    seed: int
    job: Job
    board: Board

    def run(self, carry: Carry) -> tuple[Carry, list[Metric]]:
        """Return what is handed on from here, and the final metrics; run only what is not over."""
        folder = self.job.folder
        place = None if folder is None else folder.stage(self.seed, self.stage.name)
        if place is not None and place.done:
            self.board.skip(self.stage.ticks)
            return place.carry(), place.metrics()
        if place is None:
            return self._made(carry, None, None)
        checkpoints = self._checkpoints(place, carry)
        found = checkpoints.newest()
        if found is None:
            place.begin()
            return self._made(carry, place, checkpoints)
        return self._made(Carry(found.state["extra"]["carry"]), place, checkpoints, resume=True)

    def _made(
        self,
        carry: Carry,
        place: StageFolder | None,
        checkpoints: Checkpoints | None,
        *,
        resume: bool = False,
    ) -> tuple[Carry, list[Metric]]:
        with self.stage.seeded(self.seed):
            setup = self.stage.built(self.config, self.seed, carry)
            result = setup.engine.run(
                self.stage.ticks,
                callbacks=[*self._callbacks(place, setup), *setup.callbacks],
                evaluate=setup.evaluate,
                record_every=self.stage.ticks,
                checkpoints=checkpoints,
                resume=resume,
            )
            handed = carry.and_then(setup.finish() if setup.finish else {})
        self.board.skip(self.stage.ticks - result.ticks)
        metrics = self._metrics(result, setup)
        if place is not None:
            place.finish(result, handed, metrics)
        return handed, metrics

    def _checkpoints(self, place: StageFolder, carry: Carry) -> Checkpoints:
        """Where the stage saves its states, with what it needs to be built again."""
        folder = "" if self.job.folder is None else shlex.quote(str(self.job.folder.path))
        every = self.job.save_every
        return Checkpoints(
            place.checkpoints,
            every=every,
            seconds=_PAUSE if every is None else None,
            extra={"seed": self.seed, "stage": self.stage.name, "carry": carry.plain()},
            advice=f"go on with 'mlo run --resume {folder}'",
            other_versions=self.job.other_versions,
        )

    def _callbacks(self, place: StageFolder | None, setup: Setup) -> list[object]:
        title = f"seed {self.seed}, {self.stage.name}"
        progress = Console(title, board=self.board, beside=setup.callbacks)
        if place is None:
            return [progress]
        more = self.job.watch(place) if self.job.watch is not None else ()
        return [progress, Recorder(place.records, resume=True), *more]

    def _metrics(self, result: RunResult, setup: Setup) -> list[Metric]:
        """The last value of every metric of every evaluation."""
        return [
            Metric(self.seed, self.stage.name, evaluation, name, value)
            for evaluation in setup.evaluate
            for name, value in result.last(evaluation).items()
        ]
