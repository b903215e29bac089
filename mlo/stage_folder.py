"""The part of a run folder that belongs to one stage of one repetition."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from mlo.carry import Carry
from mlo.errors import DataError, RunFolderError, listed
from mlo.files import json_text, write_text, writing
from mlo.metrics import Metric
from mlo.run_result import RunResult

_LONGEST = 200
"""Bytes of a name; most file systems take 255, of which endings need some."""


class StageFolder:
    """Names and files of one stage.

    ::

        records.jsonl    one line of JSON for each record, by `Recorder`
        checkpoints/     the newest states of the run, by `Checkpoints`, and what was not finite
        carry.pt         what is handed on to the next stage
        done.json        how the stage ended and its final metrics; there once it is over
        tensorboard/     event files, where they are asked for
        attempt-1.jsonl  records of an attempt that was cut off, where the stage was begun again;
                         its event files are in tensorboard-attempt-1/

    Args:
        path: its place; made when something is written.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @property
    def records(self) -> pathlib.Path:
        """The file of the records."""
        return self.path / "records.jsonl"

    @property
    def checkpoints(self) -> pathlib.Path:
        """The place of the states of the run; whoever writes one makes it."""
        return self.path / "checkpoints"

    @property
    def events(self) -> pathlib.Path:
        """The folder of the event files, where `TensorBoard` watches."""
        return self.path / "tensorboard"

    @property
    def done(self) -> bool:
        """Whether the stage is over."""
        return (self.path / "done.json").exists()

    def begin(self) -> None:
        """Make the folder; the records of an attempt that was cut off get another name.

        Raises:
            RunFolderError: it cannot be made.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if self.records.exists():
                attempt = self._next_attempt()
                self.records.rename(attempt)
                if self.events.exists():
                    self.events.rename(attempt.with_name(f"{self.events.name}-{attempt.stem}"))

    def _next_attempt(self) -> pathlib.Path:
        """The name for the records of an attempt, which no records and no events have."""
        paths = (self.path / f"attempt-{number}.jsonl" for number in itertools.count(1))
        taken = {path.stem.removeprefix(f"{self.events.name}-") for path in self.path.iterdir()}
        return next(path for path in paths if path.stem not in taken)

    def finish(self, result: RunResult, carry: Carry, metrics: Sequence[Metric]) -> None:
        """Write what is handed on, then how the stage ended."""
        carry.save(self.path / "carry.pt")
        end = {**result.plain(), "metrics": [dataclasses.asdict(metric) for metric in metrics]}
        write_text(self.path / "done.json", json_text(end, indent=2) + "\n")

    def carry(self) -> Carry:
        """What the stage handed on.

        Raises:
            DataError: the file is absent or damaged.
        """
        try:
            return Carry.load(self.path / "carry.pt")
        except DataError as error:
            done = self.path / "done.json"
            raise DataError(f"{error}: delete '{done}' and go on with --resume") from error

    def metrics(self) -> list[Metric]:
        """The final metrics of the stage.

        Raises:
            DataError: the file is absent or damaged.
        """
        path = self.path / "done.json"
        try:
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["metrics"]
            return [_metric(entry) for entry in found]
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise DataError(
                f"run folder: cannot read '{path}' ({type(error).__name__}: {error}); it is "
                "damaged. Delete it to run the stage again"
            ) from error


def _metric(entry: dict[str, Any]) -> Metric:
    metric = Metric(**{**entry, "value": float(entry["value"])})
    words = (metric.stage, metric.evaluation, metric.name)
    if type(metric.seed) is not int or not all(isinstance(word, str) for word in words):
        raise ValueError(f"a metric has fields of another kind: {entry}")
    return metric


def slug(name: str) -> str:
    """A name as a part of a path: letters, digits and dashes.

    Raises:
        RunFolderError: nothing is left of it, or too much for the name of a file.
    """
    found = re.sub(r"\W+", "-", name).strip("-").lower()
    if not 0 < len(found.encode()) <= _LONGEST:
        raise RunFolderError(
            f"name: expected one with letters or digits, and at most {_LONGEST} bytes of them, "
            f"found '{name}'; rename it, since a file is named after it"
        )
    return found


def check_names(stages: Sequence[str]) -> None:
    """Refuse names of stages that no run folder can hold.

    Raises:
        RunFolderError: one makes no name of a folder, or two would share one.
    """
    if len({slug(stage) for stage in stages}) < len(stages):
        raise RunFolderError(
            "stages: expected names that differ in letters or digits, whatever their case, "
            f"found {listed(stages)}; rename one"
        )
