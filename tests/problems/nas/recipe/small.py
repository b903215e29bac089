"""Small settings of the recipe, for tests."""

from __future__ import annotations

from typing import Any

from mlo.configuration import combine, configure
from problems.nas.config import NASConfig

SMALL: dict[str, Any] = {
    "seeds": 1,
    "evaluations": 3,
    "search": {
        "ticks": 6,
        "channels": 2,
        "layers": 3,
        "train_batch": 12,
        "valid_batch": 10,
        "lfm": {"encoder": {"width": 3, "features": 4}},
    },
    "evaluation": {"ticks": 5, "channels": 3, "batch": 16},
}


def config(*programs: str, **own: Any) -> NASConfig:
    """A configuration that runs in a second."""
    return configure(NASConfig, combine(SMALL, {"programs": list(programs)}, own), title="nas")
