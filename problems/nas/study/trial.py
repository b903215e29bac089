"""One run of the study: settings and a seed, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlo.configuration import combine, configure
from mlo.errors import NonfiniteError
from problems.nas.recipe import recipe
from problems.nas.study.plan import COMMON
from problems.studying import run_stages


def run_trial(own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Run a program of the recipe, its search and the training from scratch.

    Args:
        own: settings over those of `COMMON`; one program.
        seed: of the repetition.

    Returns:
        Accuracy, parameters and genotype of the network that was trained, the seconds of each
        stage and, of a search, skip connections along it and the last mixing weights; of a run that
        ended in numbers that are not finite only that, under `failed`.
    """
    config = configure(recipe.config, combine(COMMON, own), title=recipe.name)
    try:
        carry, results = run_stages(recipe, config, seed)
    except NonfiniteError as error:
        return {"failed": str(error)}
    name, result = list(results.items())[-1]
    found: dict[str, Any] = {
        **result.last("network"),
        "genotype": carry[name]["genotype"],
        "seconds": {stage: each.seconds for stage, each in results.items()},
    }
    for stage in results:
        if stage != name:
            history = carry[stage]["history"]
            found["search"] = {
                "ticks": history["ticks"].tolist(),
                "skips": history["skips"].tolist(),
                "mixing": {part: m[-1].tolist() for part, m in history["mixing"].items()},
            }
    return found


def accuracy_of(run: Mapping[str, Any]) -> float:
    """Accuracy at the end of a run; NaN where it failed."""
    return float(run.get("accuracy", math.nan))
