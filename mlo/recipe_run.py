"""Running a recipe: every stage of every repetition, with progress, records and what they leave."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import rich.console

from mlo.callbacks import Console, Recorder
from mlo.callbacks.board import Board, new_board
from mlo.carry import Carry
from mlo.configuration import RecipeConfig
from mlo.errors import described
from mlo.metrics import Metric, summary
from mlo.recipe import Recipe, Setup, Stage, ready_stages
from mlo.run_folder import RunFolder
from mlo.run_result import RunResult
from mlo.stage_folder import StageFolder
from mlo.threads import threads

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
    """

    console: rich.console.Console = dataclasses.field(default_factory=rich.console.Console)
    folder: RunFolder | None = None
    quiet: bool = False
    watch: Watch | None = None


def run_recipe(recipe: Recipe[Any], config: RecipeConfig, job: Job) -> list[Metric]:
    """Run all stages of all repetitions.

    Stages that the folder says are over are not run again: their metrics and what they handed on
    are taken from there. A stage that was cut off is begun again.

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
    started = time.monotonic()
    status, reason = "completed", "all stages were run"
    try:
        metrics = run_recipe(recipe, config, job)
        if job.folder is not None:
            job.folder.write_results({"recipe": recipe.name, "metrics": summary(metrics)})
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = described(error)
        raise
    finally:
        if job.folder is not None:
            job.folder.end(status, reason, time.monotonic() - started)
    return metrics


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
        if place is not None:
            place.begin()
        with self.stage.seeded(self.seed):
            setup = self.stage.built(self.config, self.seed, carry)
            result = setup.engine.run(
                self.stage.ticks,
                callbacks=[*self._callbacks(place), *setup.callbacks],
                evaluate=setup.evaluate,
                record_every=self.stage.ticks,
            )
            handed = carry.and_then(setup.finish() if setup.finish else {})
        self.board.skip(self.stage.ticks - result.ticks)
        metrics = self._metrics(result, setup)
        if place is not None:
            place.finish(result, handed, metrics)
        return handed, metrics

    def _callbacks(self, place: StageFolder | None) -> list[object]:
        progress = Console(f"seed {self.seed}, {self.stage.name}", board=self.board)
        if place is None:
            return [progress]
        more = self.job.watch(place) if self.job.watch is not None else ()
        return [progress, Recorder(place.records), *more]

    def _metrics(self, result: RunResult, setup: Setup) -> list[Metric]:
        """The last value of every metric of every evaluation."""
        return [
            Metric(self.seed, self.stage.name, evaluation, name, value)
            for evaluation in setup.evaluate
            for name, value in result.last(evaluation).items()
        ]
