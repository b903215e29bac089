"""Progress of a run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import rich.console
from torch import Tensor

from mlo.callbacks.base import Callback
from mlo.callbacks.board import Board, new_board
from mlo.records import (
    EvaluationRecord,
    ResponseRecord,
    StartRecord,
    TickRecord,
)
from mlo.run_result import RunResult


class Console(Callback):
    """Shows how far a run is, how fast it goes, the latest losses, and solves that failed.

    On a terminal this is a live display with a bar; elsewhere a plain line is printed at every
    tenth of the run. Losses are read a few times a second at most, since reading waits for the
    device.

    Args:
        title: name of the run, shown in front.
        console: where to draw; the standard output without it.
        quiet: draw nothing.
        board: draw as a part of this job instead, which somebody else opens and closes.
    """

    def __init__(
        self,
        title: str = "run",
        *,
        console: rich.console.Console | None = None,
        quiet: bool = False,
        board: Board | None = None,
    ) -> None:
        self.title = title
        self._console = console
        self._quiet = quiet
        self._job = board
        self._board = board
        self._losses: dict[str, Tensor | None] = {}
        self._metrics: dict[str, Mapping[str, float]] = {}
        self._responses: tuple[ResponseRecord, ...] = ()

    def on_start(self, record: StartRecord) -> None:
        """Open a board for the run, unless it draws on that of a job."""
        self._losses = dict.fromkeys(record.problems)
        self._metrics = {}
        if self._job is None:
            board = new_board(self.title, record.ticks, console=self._console, quiet=self._quiet)
            board.open()
            self._board = board

    def on_tick(self, record: TickRecord) -> None:
        """Count the tick and keep its losses and responses, unread."""
        self._losses.update((move.problem, move.loss) for move in record.moves)
        self._responses = tuple(r for move in record.moves for r in move.responses)
        if self._board is not None:
            self._board.advance(self.title if self._job else "", self._numbers)

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """Keep the metrics for the next drawing."""
        self._metrics[record.name] = record.metrics

    def on_end(self, result: RunResult) -> None:
        """Draw the last state and say how the run ended."""
        if self._job is None and self._board is not None:
            self._board.close()
            if not self._quiet:
                reason = f"{self.title}: {result.reason}"
                self._board.console.print(reason, markup=False, highlight=False, emoji=False)
            self._board = None

    def _numbers(self) -> str:
        losses = [f"{k} {float(v):.4g}" for k, v in self._losses.items() if v is not None]
        failures = [
            f"{r.problem}: {r.info.outcome.value}" for r in self._responses if r.info.outcome.failed
        ]
        metrics = [
            f"{name} " + " ".join(f"{k} {v:.4g}" for k, v in values.items())
            for name, values in self._metrics.items()
        ]
        parts = [*(["loss: " + ", ".join(losses)] if losses else []), *metrics]
        return ", ".join([*parts, *(f"hypergradient through {text}" for text in failures)])
