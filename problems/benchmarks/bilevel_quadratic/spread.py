"""Numbers of several seeds in short: the median and the quartiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles, to four digits; what is not finite counts as infinite."""
    finite = [value if math.isfinite(value) else math.inf for value in values]
    low, middle, high = _quartiles(sorted(finite))
    return {"median": rounded(middle), "quartiles": [rounded(low), rounded(high)]}


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if math.isinf(values[-1]):  # nothing lies between a number and infinity
        last = len(values) - 1
        low, middle, high = (values[math.ceil(last * k / 4)] for k in (1, 2, 3))
    else:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")
