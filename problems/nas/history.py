"""What a search thought of its candidates over time: read while it runs, drawn afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import mlo
from mlo.errors import ConfigurationError
from mlo.records import StartRecord, TickRecord
from mlo.run_result import RunResult, Status
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.pictures.words import genotype_line


class History(mlo.Callback):
    """Keeps the mixing weights of a search, and how many skip connections it would derive.

    It reads before the first tick, after every n-th one and at the end, and remembers what it has
    read where a run is resumed. Each reading is copied to host memory: 4 E O bytes a part, and a
    wait for the device. The progress shows the present genotype.

    Args:
        architecture: returns the mixing weights [E, O] of each part, as they are now.
        genotype: returns the genotype that they stand for.
        every: ticks between two readings.

    Raises:
        ConfigurationError: `every` is below 1, or, during the run, there is no genotype, since
            weights are not numbers.
    """

    def __init__(
        self,
        architecture: Callable[[], Mapping[str, Tensor]],
        genotype: Callable[[], Genotype | MacroGenotype],
        every: int,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigurationError(
                f"History(every=...): expected a whole number of at least 1, got {every!r}; give "
                "the ticks between two readings"
            )
        self._architecture = architecture
        self._genotype = genotype
        self._every = every
        self._done = 0
        self._ticks: list[int] = []
        self._mixing: dict[str, list[Tensor]] = {}
        self._skips: list[int] = []

    def values(self) -> dict[str, Any]:
        """All readings, to be handed on: ticks [T], mixing weights [T, E, O] a part, skips [T]."""
        return {
            "ticks": torch.tensor(self._ticks, dtype=torch.int64),
            "mixing": {part: torch.stack(found) for part, found in self._mixing.items()},
            "skips": torch.tensor(self._skips, dtype=torch.int64),
        }

    def line(self) -> str:
        """The present genotype in one line, or why there is none."""
        try:
            return genotype_line(self._genotype())
        except ConfigurationError as error:  # weights are not numbers: the run tells of that itself
            return f"no genotype: {error}"

    def state_dict(self) -> dict[str, Any]:
        """All readings so far."""
        return self.values()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up those readings in the place of all others."""
        self._ticks = state["ticks"].tolist()
        self._skips = state["skips"].tolist()
        self._mixing = {part: list(found.unbind()) for part, found in state["mixing"].items()}

    def on_start(self, record: StartRecord) -> None:
        """Read before the first tick, and forget what was read in another run."""
        if record.done == 0:
            self._ticks, self._mixing, self._skips = [], {}, []
        self._done = record.done
        if not self._ticks:
            self._read()

    def on_tick(self, record: TickRecord) -> None:
        """Read after every n-th tick."""
        self._done += 1  # of this run: those of the engine's runs before are not its own
        if self._done % self._every == 0:
            self._read()

    def on_end(self, result: RunResult) -> None:
        """Read what there is at the end of a run that has not failed, unless it was read."""
        failed = result.status is Status.FAILED
        if not failed and self._ticks and self._ticks[-1] != self._done:
            self._read()

    @torch.no_grad()
    def _read(self) -> None:
        skips, mixing = self._genotype().skips, self._architecture()
        self._ticks.append(self._done)
        self._skips.append(skips)
        for part, weights in mixing.items():
            self._mixing.setdefault(part, []).append(weights.detach().to("cpu", copy=True))
