"""Progress of a run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.console

from mlo.callbacks.base import Callback
from mlo.callbacks.board import Board, new_board
from mlo.callbacks.numbers import Numbers, read_row
from mlo.records import EvaluationRecord, MoveRecord, StartRecord, TickRecord
from mlo.run_result import RunResult


class Console(Callback):
    """Shows how far a run is, how fast it goes, and how every problem does.

    For each problem, the highest level first: the loss of its latest move, the norm of its gradient
    (labelled where it is a hypergradient), and for each response that this gradient went through
    the residual and the products; then solves that failed, the latest metrics, and what other
    callbacks have to say.

    On a terminal this is a table below a bar, drawn live; elsewhere plain lines are printed at
    every tenth of the run. Numbers are read only when they are drawn, a few times a second at most,
    since reading waits for the device.

    Args:
        title: name of the run, shown in front.
        console: where to draw; the standard output without it.
        quiet: draw nothing.
        board: draw as a part of this job instead, which somebody else opens and closes.
        beside: callbacks whose `line` is shown as well; those without one are passed over.
    """

    def __init__(
        self,
        title: str = "run",
        *,
        console: rich.console.Console | None = None,
        quiet: bool = False,
        board: Board | None = None,
        beside: Sequence[object] = (),
    ) -> None:
        self.title = title
        self._console = console
        self._quiet = quiet
        self._job = board
        self._board = board
        self._beside = tuple(beside)
        self._moves: dict[str, MoveRecord | None] = {}
        self._metrics: dict[str, Mapping[str, float]] = {}

    def on_start(self, record: StartRecord) -> None:
        """Open a board for the run, unless it draws on that of a job."""
        self._moves = dict.fromkeys(reversed(record.problems))
        self._metrics = {}
        if self._job is None:
            board = new_board(self.title, record.ticks, console=self._console, quiet=self._quiet)
            board.open()
            self._board = board
        if self._board is not None and record.done:
            self._board.skip(record.done)

    def on_tick(self, record: TickRecord) -> None:
        """Count the tick and keep its moves, unread."""
        self._moves.update((move.problem, move) for move in record.moves)
        if self._board is not None:
            self._board.advance(self.title if self._job else "", self._numbers)

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """Keep the metrics for the next drawing."""
        self._metrics[record.name] = record.metrics

    def on_end(self, result: RunResult) -> None:
        """Draw the last state, and say what went wrong on the way and how the run ended."""
        if self._board is None:
            return
        if self._job is None:
            self._board.close()
        for found in result.health.values():
            for note in found.notes:
                self._board.note(f"{self.title}: {note}")
        if self._job is None:
            self._board.note(f"{self.title}: {result.reason}")
            self._board = None

    def _numbers(self) -> Numbers:
        rows = (read_row(problem, move) for problem, move in self._moves.items())
        said = (line() for one in self._beside if callable(line := getattr(one, "line", None)))
        return Numbers(tuple(rows), dict(self._metrics), tuple(text for text in said if text))
