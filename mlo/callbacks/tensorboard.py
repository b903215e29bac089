"""Records of a run for TensorBoard."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlo.callbacks.base import Callback
from mlo.errors import ConfigurationError
from mlo.records import EvaluationRecord, MoveRecord, StartRecord, TickRecord
from mlo.run_result import RunResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_GROUPS = (
    *("loss", "gradient_norm", "learning_rate", "metrics"),
    *("residual", "products", "failed", "seconds"),
)
"""First parts of the names of what ticks write."""


class TensorBoard(Callback):
    """Writes a run to a folder that TensorBoard shows (``tensorboard --logdir FOLDER``).

    Of every n-th tick, for each problem's last move in it, as scalars:

    - ``loss/PROBLEM``, ``gradient_norm/PROBLEM``, ``learning_rate/PROBLEM``;
    - ``metrics/PROBLEM/METRIC``: what the loss returned beside its value; of tensors that are no
      scalars a histogram of their finite entries;
    - ``residual/PROBLEM/THROUGH`` (where one is defined), ``products/PROBLEM/THROUGH`` and
      ``failed/PROBLEM/THROUGH`` (0 or 1) of each response that its gradient went through.

    Beside these ``seconds/tick``, ``EVALUATION/METRIC`` of all evaluations (below ``evaluation/``
    where an evaluation is called as one of the groups above), and the texts ``graph`` at the start
    and ``end`` at the end. Of a vector ``EVALUATION/METRIC`` is the mean, and
    ``EVALUATION/METRIC/percentiles`` a histogram of its percentiles. The step of everything is the
    tick, counted from 0: a move's the tick in which it was made, an evaluation's and the end's the
    tick after which they came.

    Numbers are read from the device after every n-th tick, which waits for it. Several runs with
    one object follow each other in its folder.

    Args:
        folder: where to write; made where it is missing.
        every: write every n-th tick only; evaluations are all written.
        resume: the folder may hold the records of the run that is to be resumed; what these say
            of ticks that are made again counts as purged.

    Raises:
        ConfigurationError: the package is missing, the folder has records already, or `every` is
            not positive.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, every: int = 1, resume: bool = False
    ) -> None:
        _writer_class()
        self.folder = pathlib.Path(folder)
        if every < 1:
            raise ConfigurationError(
                f"TensorBoard(every=...): expected at least 1, got {every}; 1 writes all ticks"
            )
        self.every = every
        self._created = resume
        if not resume:
            _check_empty(self.folder)
        self._writer: SummaryWriter | None = None
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """The last step."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after it."""
        self._created, self._step = True, state["step"]

    def on_start(self, record: StartRecord) -> None:
        """Create the file of events, beside those of earlier runs, and write the graph."""
        if not self._created:
            _check_empty(self.folder)
        try:
            purge = self._step + 1 if record.done else None
            writer = _writer_class()(str(self.folder), purge_step=purge)
        except OSError as error:
            raise ConfigurationError(
                f"TensorBoard: cannot write to '{self.folder}': {error.strerror}; "
                "give a folder that can be made or written to"
            ) from error
        self._writer, self._created = writer, True
        if not record.done:
            writer.add_text("graph", _verbatim(record.graph), self._step)

    def on_tick(self, record: TickRecord) -> None:
        """Write every n-th tick."""
        self._step = record.tick
        if self._writer is None or record.tick % self.every:
            return
        self._writer.add_scalar("seconds/tick", record.seconds, record.tick)
        for move in {move.problem: move for move in record.moves}.values():
            _write_move(self._writer, move)

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """Write the metrics."""
        if self._writer is None:
            return
        group = f"evaluation/{record.name}" if record.name in _GROUPS else record.name
        for name, value in record.metrics.items():
            self._writer.add_scalar(f"{group}/{name}", value, record.tick)
        for name, found in record.distributions.items():
            percentiles = torch.tensor(found.percentiles, dtype=torch.float64)
            _write_metric(self._writer, f"{group}/{name}/percentiles", percentiles, record.tick)

    def on_end(self, result: RunResult) -> None:
        """Write how the run ended, and close the file."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            text = f"{result.status.value}, {result.ticks} ticks: {result.reason}"
            writer.add_text("end", _verbatim(text), self._step)
        finally:
            writer.close()


def _write_move(writer: SummaryWriter, move: MoveRecord) -> None:
    problem, step = move.problem, move.tick
    writer.add_scalar(f"loss/{problem}", float(move.loss), step)
    writer.add_scalar(f"gradient_norm/{problem}", float(move.gradient_norm), step)
    writer.add_scalar(f"learning_rate/{problem}", move.learning_rate, step)
    for name, value in move.metrics.items():
        _write_metric(writer, f"metrics/{problem}/{name}", value, step)
    for response in move.responses:
        of, info = f"{problem}/{response.problem}", response.info
        if info.residual is not None:
            writer.add_scalar(f"residual/{of}", float(info.residual), step)
        writer.add_scalar(f"products/{of}", int(info.products), step)
        writer.add_scalar(f"failed/{of}", int(info.outcome.failed), step)


def _write_metric(writer: SummaryWriter, tag: str, value: Tensor | float, step: int) -> None:
    if not isinstance(value, Tensor) or value.dim() == 0:
        writer.add_scalar(tag, float(value), step)
        return
    values = value.detach().cpu().to(torch.float64)
    finite = values[values.isfinite()]
    if finite.numel() > 0:  # there is no histogram of nothing
        writer.add_histogram(tag, finite, step)


def _writer_class() -> type[SummaryWriter]:
    """The class that writes events, imported only where it is used: it takes its time.

    Raises:
        ConfigurationError: its package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            f"TensorBoard: expected the package 'tensorboard', found that {error}; "
            "install it: pip install 'mlo-engine[tensorboard]'"
        ) from error
    return SummaryWriter


def _check_empty(folder: pathlib.Path) -> None:
    """The folder holds no records that would be mixed with those of this run.

    Raises:
        ConfigurationError: it does, or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(
            f"TensorBoard: expected a folder, found the file '{folder}'; give another path"
        )
    if any(folder.glob("*.tfevents.*")):
        raise ConfigurationError(
            f"TensorBoard: expected a folder without records, found some in '{folder}'; "
            "give another folder, or move the old records away"
        )


def _verbatim(text: str) -> str:
    """The text as a block that Markdown leaves as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
