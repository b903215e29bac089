"""The recipe `lfm-reweighting`: Learning From Mistakes against plain training, on one split."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch

from mlo.callbacks import Callback
from mlo.engine import Engine
from mlo.errors import DataError
from mlo.recipe import Job, Recipe, Results
from mlo.run_folder import RunFolder
from problems.lfm.config import ReweightingConfig
from problems.lfm.experiment import RUNS, Repetition, run_repetition
from problems.lfm.plots import plot_accuracy, plot_weights
from problems.lfm.programs import lfm_engine
from problems.lfm.report import describe, numbers, table
from problems.lfm.task import make_task


class LFMReweighting(Recipe[ReweightingConfig]):
    """Trains plainly and by Learning From Mistakes for every seed, and compares the two."""

    name = "lfm-reweighting"
    summary = "Learning From Mistakes: weights for noisy or imbalanced training data"
    config = ReweightingConfig

    def engine(self, config: ReweightingConfig, seed: int) -> Engine:
        """Build the three-problem program on the data of one seed."""
        return lfm_engine(config, seed, make_task(config, seed))

    def run(self, config: ReweightingConfig, job: Job) -> Results:
        """Run all seeds under one progress display and compare what came out."""
        repetitions = []
        board = job.board(config.seeds * len(RUNS) * config.ticks)
        with _threads(config.threads), board:

            def watch(seed: int, run: str) -> tuple[Callback, ...]:
                return job.callbacks(f"seed {seed}, {run}", board)

            for seed in config.seed_range:
                repetition = run_repetition(config, seed, functools.partial(watch, seed))
                repetitions.append(repetition)
        results = numbers(repetitions)
        notes = [
            "plain+val is plain training with the validation images added; the spread is the "
            "standard deviation over the seeds."
        ]
        if job.folder is not None:
            notes.append(_draw(config, repetitions, job.folder))
        return Results(results, (table(config, results),), tuple(notes))


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw(config: ReweightingConfig, repetitions: Sequence[Repetition], folder: RunFolder) -> str:
    try:
        plot_accuracy(repetitions, folder.plot("accuracy"), title=describe(config))
        plot_weights(repetitions, folder.plot("weights"), title=describe(config))
    except DataError as error:
        return f"No plots were drawn: {error}"
    return f"Plots: {folder.plot('accuracy')}, {folder.plot('weights')}"


recipe = LFMReweighting()
