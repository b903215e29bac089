"""Which batches an update takes of those that its tick has drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlo.program import Program
from mlo.streams import Stream
from mlo.types import Batch


def micro_batches(
    program: Program, streams: Mapping[str, Stream], name: str, update: int
) -> tuple[Batch, ...]:
    """The micro-batches of an update of `name`, stream by stream.

    Of the tick's draws a problem that needs n uses the last n. Where it is looked at in a tick in
    which it does not move, there may be fewer.

    Args:
        program: the compiled declaration.
        streams: where batches come from.
        name: the problem.
        update: which of its `repeat` updates; -1 takes the last batches of the tick.
    """
    problem = program.problems[name]
    size = problem.accumulate
    end = (problem.repeat - 1 - update) * size if update >= 0 else 0
    found: dict[str, list[Any]] = {}
    for stream in program.graph.nodes[name].streams:
        present, held = streams[stream].present(), streams[stream].held
        found[stream] = held[: max(len(held) - end, 0)][-size:] or [present]
    count = min((len(batches) for batches in found.values()), default=size)
    return tuple(
        {stream: batches[i - count] for stream, batches in found.items()} for i in range(count)
    )
