"""What the study runs: settings, methods, and what is tried to choose the architecture's rate.

All methods search for a chain of layers for MNIST-1D. Learning From Mistakes sets the budget: the
floating-point operations of its search. The others get as many, and every method's choice is
trained from scratch by the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
"""Settings of the recipe, nested."""

COMMON: Settings = {
    "dataset": "mnist1d",
    "space": "macro",
    "seeds": 1,
    "evaluations": 12,
    "search": {
        "ticks": 240,
        "channels": 8,
        "layers": 6,
        "train_batch": 64,
        "valid_batch": 64,
        "lfm": {"encoder": {"width": 16, "features": 32, "batch_norm": True}},
    },
    "evaluation": {
        "ticks": 1000,
        "channels": 8,
        "training": {"learning_rate": 0.05, "weight_decay": 3e-4, "clip_norm": 5.0},
    },
}
"""Settings of all runs."""

SEARCHES: Mapping[str, Settings] = {
    "LFM": {"programs": ["lfm"]},
    "LFM, finite differences": {"programs": ["lfm"], "hypergradient": "finite-difference"},
    "DARTS": {"programs": ["darts"]},
    "DARTS, finite differences": {"programs": ["darts"], "hypergradient": "finite-difference"},
}
"""Method that trains a supernet -> what it sets. The first one sets the budget."""

BUDGET = "LFM"
"""The method whose search sets the budget."""

TUNED: Mapping[str, str] = {"LFM": "lfm", "DARTS": "architecture"}
"""Method whose architecture's rate is chosen -> section that has it; the variants take its rate."""

RATES = (3e-3, 1e-2, 3e-2)
"""The rates that are tried."""

RANDOM, SINGLE, DRAWN = "random search", "best single operation", "a random architecture"
"""Methods without a supernet: the best of candidates that were trained for a while each, of random
ones or of those with one operation throughout, and a single random one."""

PROXY_TICKS = 150
"""For how long a random candidate is trained before it is compared."""


def tuned_as(method: str) -> str:
    """The method whose rate a method takes."""
    return method.partition(",")[0]
