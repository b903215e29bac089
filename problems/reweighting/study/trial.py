"""One run of the study: a configuration and a seed, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.configuration import combine, configure
from mlo.errors import NonfiniteError
from problems.evaluation import class_accuracy
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.readings import area_under_roc, as_array
from problems.reweighting.recipe import recipe
from problems.reweighting.study.plan import BASE, COMMON, DAMAGE, program
from problems.studying import run_stages


def trial_settings(data: str, damage: str, method: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run.

    Args:
        data: name in `BASE`.
        damage: name in `DAMAGE`.
        method: its name.
        own: what the method or the ablation sets.
    """
    return combine(COMMON, BASE[data], DAMAGE[damage], own, {"programs": [program(method)]})


def run_trial(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train all stages and say how the last one ended.

    Args:
        settings: of the recipe.
        seed: of the repetition.

    Returns:
        Accuracies of every network, of every class, and what the weights look like; of a run that
        ended in numbers that are not finite only that, under `failed`.
    """
    config = configure(recipe.config, settings, title=recipe.name)
    try:
        return _finished(config, seed)
    except NonfiniteError as error:
        return {"failed": str(error), "networks": {}}


def _finished(config: ReweightingConfig, seed: int) -> dict[str, Any]:
    carry, results = run_stages(recipe, config, seed)
    name, result = list(results.items())[-1]
    kept = carry[name]
    found: dict[str, Any] = {
        "seconds": sum(each.seconds for each in results.values()),
        "networks": {},
        "counts": kept["data"]["counts"],
    }
    for name, counts in kept["confusion"].items():
        found["networks"][name] = {
            "accuracy": counts.diagonal().sum().item() / counts.sum().item(),
            "classes": class_accuracy(counts).tolist(),
        }
    if "weights" in kept:
        found["weights"] = _described(kept["weights"], kept["labels"], kept["corrupted"])
    if result.last("similarity"):
        found["similarity"] = dict(result.last("similarity"))
    return found


def _described(weights: Tensor, labels: Tensor, corrupted: Tensor) -> dict[str, Any]:
    """What the weights of the training examples look like at the end."""
    classes = int(labels.max()) + 1
    found: dict[str, Any] = {
        "mean": weights.mean().item(),
        "quantiles": torch.quantile(weights.double(), torch.linspace(0, 1, 11).double()).tolist(),
        "classes": [weights[labels == k].mean().item() for k in range(classes)],
        "at half": ((weights - 0.5).abs() < 1e-4).double().mean().item(),
    }
    if corrupted.any():
        found |= {
            "clean": weights[~corrupted].mean().item(),
            "corrupted": weights[corrupted].mean().item(),
            "area": area_under_roc(as_array(weights), corrupted.cpu().numpy()),
        }
    return found


def accuracy_of(run: Mapping[str, Any], network: str) -> float:
    """Accuracy of a network at the end of a run; NaN where the run failed."""
    return float(run["networks"][network]["accuracy"]) if run["networks"] else math.nan
