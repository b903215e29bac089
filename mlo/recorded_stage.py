"""The records of one stage of a run, read back line by line."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mlo.errors import DataError
from mlo.metrics import Metric
from mlo.stage_folder import StageFolder

Record = Mapping[str, Any]
"""A record as its line of JSON gives it; NaN and infinities are words (`float` reads them)."""

_RECORDS: Mapping[str, Mapping[str, Any]] = {
    "start": {"ticks": int, "problems": list, "graph": str, "drawing": dict},
    "tick": {"tick": int, "seconds": int | float, "moves": list},
    "evaluation": {"tick": int, "name": str, "metrics": dict, "distributions": dict},
    "end": {"status": str, "reason": str, "ticks": int},
}
"""What a record must hold to be whole: kind -> name -> kind of value."""


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


def read_stage(folder: StageFolder, seed: int, name: str, planned: int) -> RecordedStage:
    """Read one stage.

    Raises:
        DataError: its final metrics are damaged, or its records cannot be read.
    """
    found: dict[str, list[Record]] = {"start": [], "tick": [], "evaluation": [], "end": []}
    damaged = 0
    for line in _lines(folder.records):
        record = _record(line)
        if record is None:
            damaged += 1
        else:
            found[record["kind"]].append(record)
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


def _record(line: str) -> Record | None:
    """The record in a line, None where it is damaged."""
    try:
        record = json.loads(line)
        fields = _RECORDS[record["kind"]]
        whole = all(is_kind(record[name], kind) for name, kind in fields.items())
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if whole else None


def _lines(path: pathlib.Path) -> Iterator[str]:
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as error:
        raise DataError(f"run folder: cannot read '{path}': {error.strerror}") from error


def is_kind(value: Any, kind: Any) -> bool:
    """Whether a value that was read is of that kind."""
    # True and False are whole numbers to Python.
    return isinstance(value, kind) and not isinstance(value, bool)
