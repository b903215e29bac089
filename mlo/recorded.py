"""A run read back from its folder, finished or not."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlo.errors import RunFolderError
from mlo.files import read_json
from mlo.metrics import Metric
from mlo.recorded_stage import Record, RecordedStage, is_kind, read_stage
from mlo.run_lock import in_use
from mlo.stage_folder import StageFolder, check_names, slug

__all__ = ["Record", "RecordedRun", "RecordedStage", "read_run", "read_stage"]

_STATE = {
    "recipe": str,
    "status": str,
    "reason": str,
    "stages": dict,
    "seconds": int | float,
    "started": str,
}
_CONFIG = {"seeds": int, "first_seed": int}
"""What a file must hold to be whole: name -> kind of value."""


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run as its folder tells it.

    Attributes:
        path: the folder.
        state: what `run.json` says: recipe, status, reason, started, ended, seconds, stages.
        config: the resolved configuration.
        versions: software and machine.
        stages: those that have begun, by seed and then in order.
        plots: pictures of the run, as PNG; those of its recipe lie beside them as SVG too.
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
    def about(self) -> str | None:
        """What the run is about, as its recipe says; None where it does not, or is not over."""
        results = self.path / "results.json"
        return read_json(results).get("about") if results.exists() else None

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
        total = self.config["seeds"] * len(self.state["stages"])
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
    state = _read(path / "run.json", _STATE)
    config = _read(path / "config.json", _CONFIG)
    if not all(type(ticks) is int for ticks in state["stages"].values()):
        raise RunFolderError(
            f"run folder: '{path / 'run.json'}' is damaged: expected stages with whole numbers of "
            f"ticks, found {state['stages']}"
        )
    check_names(list(state["stages"]))
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
    # What is there decides, since the number of seeds may be damaged and beyond all bounds.
    places = [place.name.removeprefix("seed-") for place in path.glob("seed-*")]
    last = config["first_seed"] + config["seeds"] - 1
    for seed in sorted(int(place) for place in places if re.fullmatch("0|[1-9][0-9]{0,19}", place)):
        if not config["first_seed"] <= seed <= last:
            continue
        for name, planned in state["stages"].items():
            folder = StageFolder(path / f"seed-{seed}" / slug(name))
            if folder.path.exists():
                yield read_stage(folder, seed, name, planned)


def _read(path: pathlib.Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON object that has at least these fields, of these kinds.

    Raises:
        RunFolderError: it is absent or damaged.
    """
    found = read_json(path)
    for name, kind in fields.items():
        if name not in found or not is_kind(found[name], kind):
            what = f"{found[name]!r}" if name in found else "none"
            raise RunFolderError(
                f"run folder: '{path}' is damaged: expected '{name}' as a value of type "
                f"{getattr(kind, '__name__', kind)}, found {what}"
            )
    return found
