"""A run read back from its folder, finished or not."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mlo.errors import RunFolderError
from mlo.files import read_json
from mlo.metrics import Metric
from mlo.run_lock import in_use
from mlo.stage_folder import StageFolder, slug

Record = Mapping[str, Any]
"""A record as its line of JSON gives it; NaN and infinities are words (`float` reads them)."""


@dataclasses.dataclass(frozen=True)
class RecordedStage:
    """The records of one stage of one repetition.

    Attributes:
        seed: of the repetition.
        name: of the stage.
        planned: ticks it was to make.
        start: the start record; None where the stage has not begun.
        ticks: the tick records, in order.
        evaluations: the evaluation records, in order.
        done: whether the stage is over.
        metrics: its final metrics, once it is over.
        damaged: lines that could not be read, such as one that was cut off in the middle.
    """

    seed: int
    name: str
    planned: int
    start: Record | None
    ticks: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    done: bool
    metrics: tuple[Metric, ...]
    damaged: int

    @property
    def made(self) -> int:
        """Ticks made, as far as the records tell."""
        return self.ticks[-1]["tick"] + 1 if self.ticks else 0


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run as its folder tells it.

    Attributes:
        path: the folder.
        state: what `run.json` says: recipe, status, reason, started, ended, seconds, stages.
        config: the resolved configuration.
        versions: software and machine.
        stages: those that have begun, by seed and then in order.
        plots: pictures of the run.
        active: whether a process on this machine is writing to it.
    """

    path: pathlib.Path
    state: Mapping[str, Any]
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    stages: tuple[RecordedStage, ...]
    plots: tuple[pathlib.Path, ...]
    active: bool

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        return str(self.state["recipe"])

    @property
    def complete(self) -> bool:
        """Whether all stages of all seeds are over."""
        return bool(self.state["status"] == "completed")

    @property
    def metrics(self) -> list[Metric]:
        """The final metrics of all stages that are over."""
        return [metric for stage in self.stages for metric in stage.metrics]

    @property
    def status(self) -> str:
        """How the run ended, or that it has not, in a sentence."""
        if self.complete:
            return "completed"
        if self.state["status"] == "running":
            return f"running: {self.progress}" if self.active else f"cut off: {self.progress}"
        return f"{self.state['status']} ({self.state['reason']}): {self.progress}"

    @property
    def progress(self) -> str:
        """How far the run is, in words."""
        seeds = range(self.config["first_seed"], self.config["first_seed"] + self.config["seeds"])
        total = len(seeds) * len(self.state["stages"])
        over = sum(stage.done for stage in self.stages)
        words = f"{over} of {total} stages are over"
        unfinished = [stage for stage in self.stages if not stage.done]
        return words + "".join(
            f"; seed {s.seed}, {s.name}: {s.made} of {s.planned} ticks" for s in unfinished
        )


def read_run(path: str | os.PathLike[str]) -> RecordedRun:
    """Read a run folder; a run that was cut off, or is still going, can be read as well.

    Raises:
        RunFolderError: it is no run folder, or one of its files is damaged.
        DataError: the final metrics of a stage are damaged.
    """
    path = pathlib.Path(path)
    state = read_json(path / "run.json")
    absent = {"recipe", "status", "reason", "stages", "seconds", "started"} - state.keys()
    config = read_json(path / "config.json")
    absent |= {"seeds", "first_seed"} - config.keys()
    if absent:
        raise RunFolderError(
            f"run folder: '{path}' is damaged: run.json or config.json lacks {sorted(absent)}"
        )
    return RecordedRun(
        path,
        state,
        config,
        read_json(path / "versions.json"),
        tuple(_stages(path, state, config)),
        tuple(sorted((path / "plots").glob("*.png"))),
        in_use(path),
    )


def _stages(path: pathlib.Path, state: Record, config: Record) -> Iterator[RecordedStage]:
    for seed in range(config["first_seed"], config["first_seed"] + config["seeds"]):
        for name, planned in state["stages"].items():
            folder = StageFolder(path / f"seed-{seed}" / slug(name))
            if folder.path.exists():
                yield read_stage(folder, seed, name, planned)


def read_stage(folder: StageFolder, seed: int, name: str, planned: int) -> RecordedStage:
    """Read one stage.

    Raises:
        DataError: its final metrics are damaged.
    """
    found: dict[str, list[Record]] = {"start": [], "tick": [], "evaluation": [], "end": []}
    damaged = 0
    for line in _lines(folder.records):
        try:
            record = json.loads(line)
            found[record["kind"]].append(record)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return RecordedStage(
        seed,
        name,
        planned,
        found["start"][0] if found["start"] else None,
        tuple(found["tick"]),
        tuple(found["evaluation"]),
        folder.done,
        tuple(folder.metrics()) if folder.done else (),
        damaged,
    )


def _lines(path: pathlib.Path) -> Iterator[str]:
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
