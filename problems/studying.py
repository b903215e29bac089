"""Many runs side by side in processes; what is over is kept in a file and not run again."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import math
import multiprocessing
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import rich.console
from pydantic import Field, model_validator
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import mlo
import problems
from mlo.benchmark import BenchmarkConfig
from mlo.configuration import RecipeConfig
from mlo.errors import DataError
from mlo.files import writing
from mlo.recipe import Carry, Recipe
from mlo.run_result import RunResult
from mlo.threads import threads


@functools.lru_cache(maxsize=1)
def code_digest() -> str:
    """A part of the SHA-256 of all Python files of the engine and of the problem libraries."""
    found = hashlib.sha256()
    for package in (mlo, problems):
        root = pathlib.Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


class StudySettings(BenchmarkConfig):
    """Seeds, processes, and where results are kept."""

    seeds: int = Field(5, ge=1, description="reported seeds")
    tuning_seeds: int = Field(2, ge=1, description="seeds on which settings are chosen")
    first_tuning_seed: int = Field(900, ge=0, description="the first of these")
    workers: int = Field(2, ge=1, description="processes, of one thread each")
    shorten: int = Field(1, ge=1, description="divide the length of every run by this")
    kept: pathlib.Path | None = Field(
        None, description="file of runs that are over; a study that was cut off goes on from it"
    )

    @model_validator(mode="after")
    def _seeds_apart(self) -> Self:
        if self.first_tuning_seed < self.seeds:
            raise ValueError(
                f"first_tuning_seed: expected at least seeds = {self.seeds}, so that no reported "
                f"seed chooses settings, got {self.first_tuning_seed}"
            )
        return self

    @property
    def held_out_seeds(self) -> list[int]:
        """The seeds on which settings are chosen."""
        return list(range(self.first_tuning_seed, self.first_tuning_seed + self.tuning_seeds))


def counting(console: rich.console.Console) -> Progress:
    """Bars that count runs, with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def best_of(values: Sequence[float]) -> int:
    """The first of the largest; what failed is NaN, and is chosen only where all failed."""
    return max(range(len(values)), key=lambda k: -1.0 if math.isnan(values[k]) else values[k])


class Trial(NamedTuple):
    """A run: all settings of the recipe, and a seed."""

    settings: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """The same for the same run, in every process."""
        return json.dumps([self.settings, self.seed], sort_keys=True)


class Kept:
    """Results of runs in a file of JSON lines, so that a study that was cut off goes on.

    Args:
        path: the file; None keeps them in memory only.

    Raises:
        DataError: the file is there and cannot be read.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        with writing(path):
            path.touch()
            text = path.read_text(encoding="utf-8", errors="replace")
            whole, _, cut_off = text.rpartition("\n")
            if cut_off:  # by a kill: that run is made again
                path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for line in whole.splitlines():
            self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key, result, code = entry["key"], entry["result"], entry["code"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"kept: '{self.path}': expected a line of JSON for each run, found {line[:60]!r}; "
                "delete the line, or name another file"
            ) from error
        if code != code_digest():
            raise DataError(
                f"kept: '{self.path}' holds runs of other code ({code}, this is {code_digest()}); "
                "name another file"
            )
        self.found[key] = result

    def add(self, trial: Trial, result: dict[str, Any]) -> None:
        """Keep a result.

        Raises:
            RunFolderError: it cannot be written.
        """
        self.found[trial.key] = result
        if self.path is None:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            line = {"key": trial.key, "code": code_digest(), "result": result}
            file.write(json.dumps(line) + "\n")


def run_stages(
    recipe: Recipe[Any], config: RecipeConfig, seed: int
) -> tuple[Carry, dict[str, RunResult]]:
    """Run all stages of one repetition, and keep nothing on a disk.

    Args:
        recipe: what to run.
        config: its settings.
        seed: of the repetition.

    Returns:
        What the stages handed on, and how each of them ran, by its name.
    """
    carry, results = Carry(), {}
    with threads(config.threads):
        for stage in recipe.stages(config):
            with stage.seeded(seed):
                setup = stage.built(config, seed, carry)
                results[stage.name] = setup.engine.run(
                    stage.ticks, evaluate=setup.evaluate, callbacks=setup.callbacks
                )
                carry = carry.and_then(setup.finish() if setup.finish else {})
    return carry, results


RunTrial = Callable[[Mapping[str, Any], int], dict[str, Any]]
"""What a run gives, as plain values: a function of a module, of all settings and of a seed."""


def run_all(
    run: RunTrial, trials: Sequence[Trial], kept: Kept, *, workers: int, done: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Run those that are not kept, and give the results of all, in order.

    Args:
        run: makes one of them, in a process of its own.
        trials: the runs.
        kept: those that are over.
        workers: processes.
        done: called once for each run.
    """
    missing = {trial.key: trial for trial in trials if trial.key not in kept.found}
    for _ in range(len(trials) - len(missing)):
        done()
    # New interpreters: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(run, *trial): trial for trial in missing.values()}
        try:
            for future in concurrent.futures.as_completed(waiting):
                kept.add(waiting[future], future.result())
                done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return iter([kept.found[trial.key] for trial in trials])
