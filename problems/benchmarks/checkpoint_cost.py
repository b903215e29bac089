"""The benchmark `checkpoint-cost`: a checkpoint beside `torch.save` of the same state."""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import rich.console
import torch
from pydantic import Field
from rich import box
from rich.table import Table
from torch import nn

import mlo
from mlo.benchmark import Benchmark, BenchmarkConfig, BenchmarkResults
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.checkpoint_folder import CheckpointFolder
from mlo.plain import differences
from mlo.problem_state import problem_state

PLAIN = "torch"
"""What everything is compared with."""


class CheckpointCostConfig(BenchmarkConfig):
    """How large the state is, and how often and where it is written."""

    repeats: int = Field(15, ge=2, description="how often everything is timed")
    width: int = Field(500, ge=1, description="units of every layer")
    folder: str = Field(".", description="a folder of the disk to be measured")


class CheckpointCost(Benchmark[CheckpointCostConfig]):
    """Writes and reads two networks of 8 layers (SGD with momentum) and an encoder of 44 (Adam).

    Everything is written to new files and synced to the disk, in turn; `CheckpointFolder` writes
    its manifest and deletes the oldest file as well. Ratios are medians over the repeats, with
    the quartiles. Files are read while the system still holds them in memory.
    """

    name = "checkpoint-cost"
    summary = "Writing and reading a checkpoint beside torch.save and torch.load."
    config = CheckpointCostConfig

    def run(self, config: CheckpointCostConfig, console: rich.console.Console) -> BenchmarkResults:
        """Write and read in turn, and compare what was read."""
        problems = _problems(config.width)
        state = {"problems": {problem.name: problem_state(problem) for problem in problems}}
        sizes = {p.name: sum(w.numel() for w in p.module.parameters()) for p in problems}
        with tempfile.TemporaryDirectory(dir=config.folder) as folder:
            numbers = _measure(state, pathlib.Path(folder), config.repeats)
        tables = [_table(kind, numbers[kind]) for kind in ("write", "read")]
        return BenchmarkResults({"seed": 0, "parameters": sizes, **numbers}, tables)


def _problems(width: int) -> list[mlo.Problem]:
    """The problems after one step of their optimizers, which fills the states."""
    torch.manual_seed(0)
    found = []
    for name, layers in (("a", 8), ("b", 8), ("encoder", 44)):
        net = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        net.float()
        optimizer = (
            torch.optim.Adam(net.parameters())
            if name == "encoder"
            else torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        )
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        optimizer.zero_grad()
        found.append(mlo.Problem(name, module=net, loss=_no_loss, optimizer=optimizer))
    return found


def _no_loss() -> None:
    raise NotImplementedError("these problems are written, not solved")


def _measure(state: dict[str, Any], folder: pathlib.Path, repeats: int) -> dict[str, Any]:
    plain, ours = folder / "plain.pt", folder / "ours.pt"
    checkpoints = CheckpointFolder(folder / "checkpoints")
    write: dict[str, list[float]] = {PLAIN: [], "write_checkpoint": [], "CheckpointFolder": []}
    read: dict[str, list[float]] = {PLAIN: [], "read_checkpoint": []}
    for tick in range(-1, repeats):  # the first is not counted
        plain.unlink(missing_ok=True)
        ours.unlink(missing_ok=True)
        seconds = [
            _seconds(lambda: _torch_write(plain, state)),
            _seconds(lambda: write_checkpoint(ours, state)),
            _seconds(lambda tick=tick: checkpoints.write(state, tick + 1)),  # type: ignore[misc]
            _seconds(lambda: torch.load(plain, weights_only=True)),
            _seconds(lambda: read_checkpoint(ours)),
        ]
        if tick >= 0:
            for times, value in zip((*write.values(), *read.values()), seconds, strict=True):
                times.append(value)
    newest = checkpoints.newest()
    for found in (read_checkpoint(ours), newest.state if newest else None):
        for path, before, now in differences(state, found):
            raise AssertionError(f"{path}: {before} was written, {now} was read")
    return {"bytes": ours.stat().st_size, "write": _compared(write), "read": _compared(read)}


def _torch_write(path: pathlib.Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _compared(times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[PLAIN], strict=True)]
        rows[name] = {
            "seconds": statistics.median(seconds),
            "ratio": statistics.median(ratios),
            "quartiles": statistics.quantiles(ratios, n=4)[::2],
        }
    return rows


def _table(kind: str, rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(kind, "seconds", "ratio (quartiles)", box=box.SIMPLE_HEAD)
    for name, row in rows.items():
        low, high = row["quartiles"]
        ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, f"{row['seconds']:.3f}", ratio)
    return table


benchmark = CheckpointCost()
