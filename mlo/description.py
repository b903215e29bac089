"""What a program is, in plain values: a checkpoint of another one is refused by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.errors import CheckpointError
from mlo.plain import differences
from mlo.problem import Problem
from mlo.program import Program
from mlo.schedule import Schedule
from mlo.streams import Stream

_SHOWN = 12
"""Differences that a message lists; the rest are counted."""


def described_versions() -> dict[str, str]:
    """Versions of the software that decides the bits of a run."""
    import mlo

    return {"mlo-engine": mlo.__version__, "torch": str(torch.__version__)}


def described_program(
    program: Program, schedule: Schedule, streams: Mapping[str, Stream]
) -> dict[str, Any]:
    """Problems, their tensors, optimizers and methods; who reads whom and moves when; streams."""
    graph = program.graph
    problems = {}
    for name, problem in program.problems.items():
        node, timing = graph.nodes[name], schedule.timings[name]
        problems[name] = {
            "level": graph.level[name],
            "reads": list(node.reads),
            "streams": list(node.streams),
            "constant": sorted(node.constant),
            "every": timing.every,
            "repeat": timing.repeat,
            "warmup": timing.warmup,
            "accumulate": timing.accumulate,
            **_described(problem, list(program.variables[name])),
        }
    return {
        "lookahead": schedule.lookahead,
        "nested": graph.nested,
        "problems": problems,
        "streams": {name: _stream(stream) for name, stream in streams.items()},
    }


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Refuse what was saved with another description.

    Raises:
        CheckpointError: there are differences; the message lists them.
    """
    found = list(differences(before, now))
    if not found:
        return
    lines = [f"  {path}: saved with {old!r}, now {new!r}" for path, old, new in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  ... and {len(found) - _SHOWN} more")
    raise CheckpointError(
        f"checkpoint: it was made by another {what}; build the one that it was made by, or take "
        "single parts of it with mlo.read_checkpoint. The differences:\n" + "\n".join(lines)
    )


def _described(problem: Problem, variables: list[str]) -> dict[str, Any]:
    module, scheduler = problem.module, problem.scheduler
    start = problem.start_reads
    return {
        "variables": variables,
        "parameters": {key: _tensor(p) for key, p in module.named_parameters()},
        # Their shapes may change on the way, and with them what is in them.
        "buffers": sorted(
            f"{path}.{key}" if path else key
            for path, part in module.named_modules()
            for key in part._buffers
        ),
        "optimizer": type(problem.optimizer).__qualname__,
        "scheduler": None if scheduler is None else type(scheduler).__qualname__,
        "scheduler_every": problem.scheduler_every,
        # Functions and plain objects in it are known by their kind, not by their address.
        "hypergradient": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(problem.hypergradient)),
        "clip_norm": problem.clip_norm,
        "start": None if start is None else list(start.names),
        "restart": problem.restart,
        "project": problem.project is not None,
        "updates_buffers": list(problem.updates_buffers),
    }


def _tensor(p: Tensor) -> str:
    return f"{str(p.dtype).removeprefix('torch.')}{list(p.shape)} on {p.device}"


def _stream(stream: Stream) -> dict[str, Any]:
    return {"source": type(stream.source).__qualname__, "batches": stream.length}
