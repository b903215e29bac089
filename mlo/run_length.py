"""How many ticks a run makes: as many as given, or as complete the epochs of a stream."""

from __future__ import annotations

from collections.abc import Mapping

from mlo.errors import DeclarationError
from mlo.schedule import Schedule
from mlo.streams import Stream

PATIENCE = 10**6
"""Ticks without a draw after which a stream counts as not drawn at all."""


def run_length(
    ticks: int | None,
    epochs: int | None,
    *,
    schedule: Schedule,
    streams: Mapping[str, Stream],
    tick: int,
    counts: Mapping[str, int],
) -> int:
    """Ticks to make from here.

    Args:
        ticks: their number, or `None`.
        epochs: epochs of the first stream that has a length, from the lowest problem on, or `None`.
        schedule: who moves when.
        streams: by name.
        tick: the next tick.
        counts: of the schedule, before it.

    Raises:
        DeclarationError: neither or both are given, or the epochs cannot be counted.
    """
    if ticks is not None and epochs is None:
        return at_least_one("ticks", ticks)
    if ticks is not None or epochs is None:
        raise DeclarationError("Engine.run takes exactly one of ticks= and epochs=")
    read = [streams[stream] for node in schedule.graph.nodes.values() for stream in node.streams]
    for stream in read:
        if stream.length is not None:
            wanted = (stream.epochs + at_least_one("epochs", epochs)) * stream.length
            return _until(stream, wanted, schedule, tick, counts)
    raise DeclarationError("Engine.run(epochs=...) needs a data stream with a length; use ticks=")


def _until(
    stream: Stream, batches: int, schedule: Schedule, tick: int, counts: Mapping[str, int]
) -> int:
    """Ticks until `stream` has given `batches` batches: the schedule played ahead."""
    used, ticks, idle = stream.used, 0, 0
    while used < batches:
        if idle == PATIENCE:
            raise DeclarationError(
                f"Engine.run(epochs=...): stream '{stream.name}' is not drawn in {PATIENCE} ticks; "
                "use ticks=, or a shorter warmup= or every="
            )
        plan = schedule.plan(tick + ticks, counts)
        drawn = plan.draws.get(stream.name, 0)
        idle = 0 if drawn else idle + 1
        used, ticks, counts = used + drawn, ticks + 1, plan.counts
    return ticks


def at_least_one(argument: str, value: int) -> int:
    """A whole number of at least 1.

    Raises:
        DeclarationError: `value` is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DeclarationError(
            f"Engine.run({argument}=...) must be a whole number of at least 1, got {value!r}"
        )
    return value
