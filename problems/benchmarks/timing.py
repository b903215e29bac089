"""The engine beside a hand-written loop, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

Step = Callable[[], Tensor]
"""Makes one tick and returns the upper loss."""


def compare(
    engine: Callable[[], Step], loop: Callable[[], Step], ticks: int, repeats: int
) -> dict[str, Any]:
    """Check that both give the same losses, then time them in turn."""
    ours, theirs = engine(), loop()
    gap = max(abs(float(ours()) / float(theirs()) - 1) for _ in range(5))
    seconds: dict[str, list[float]] = {"engine": [], "loop": []}
    for _ in range(repeats):
        for name, step in (("engine", ours), ("loop", theirs)):
            started = time.perf_counter()
            for _ in range(ticks):
                step()
            seconds[name].append((time.perf_counter() - started) / ticks)
    ratios = [a / b for a, b in zip(seconds["engine"], seconds["loop"], strict=True)]
    return {
        "largest relative difference of the losses": gap,
        "engine_ms": 1e3 * statistics.median(seconds["engine"]),
        "loop_ms": 1e3 * statistics.median(seconds["loop"]),
        "ratio": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4)[::2],
    }
