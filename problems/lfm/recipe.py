"""The recipe `lfm-reweighting`: Learning From Mistakes against plain training, on one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from rich.table import Table
from torch import Tensor, nn

from mlo.metrics import Metric
from mlo.recipe import Carry, Recipe, Setup, Stage
from problems.datasets.sets import Labelled
from problems.datasets.task import Task
from problems.evaluation import accuracy
from problems.lfm.config import ReweightingConfig
from problems.lfm.evaluation import training_weights
from problems.lfm.programs import lfm_engine, plain_engine
from problems.lfm.report import table
from problems.lfm.task import make_task
from problems.lfm.validator import Validator


class LFMReweighting(Recipe[ReweightingConfig]):
    """Trains plainly and by Learning From Mistakes for every seed, and compares the two.

    The stages of a seed share nothing but the configuration: the same split, noise, start and
    order of the batches are drawn for each.
    """

    name = "lfm-reweighting"
    summary = "Learning From Mistakes: weights for noisy or imbalanced training data"
    config = ReweightingConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"ticks": 120, "seeds": 1, "evaluations": 12},
        "uniform": {"noise": "uniform", "rate": 0.6},
        "imbalance": {"noise": "none", "imbalance": 0.02},
    }
    shown = "LFM"

    def stages(self, config: ReweightingConfig) -> Sequence[Stage[ReweightingConfig]]:
        """Plain training, the same on the validation images too, and LFM."""
        builds = {"plain": _plain, "plain+val": _plain_with_validation, "LFM": _lfm}
        return [Stage(name, config.ticks, build) for name, build in builds.items()]

    def tables(self, config: ReweightingConfig, metrics: Sequence[Metric]) -> Sequence[Table]:
        """A row for each seed, then mean and spread."""
        return [table(config, metrics)]

    def notes(self, config: ReweightingConfig) -> Sequence[str]:
        """What the headings of the table mean."""
        return [
            "plain+val is plain training with the validation images added; the spread is the "
            "standard deviation over the seeds."
        ]


def _plain(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    task = make_task(config, seed)
    return _plain_setup(config, seed, task, task.train)


def _plain_with_validation(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    task = make_task(config, seed)
    images, labels = (torch.cat(pair) for pair in zip(task.train, task.valid, strict=True))
    return _plain_setup(config, seed, task, (images, labels))


def _plain_setup(config: ReweightingConfig, seed: int, task: Task, train: Labelled) -> Setup:
    engine = plain_engine(config, seed, train, task.classes)
    return Setup(engine, config.spread_out({"learner": _accuracy_of_learner(task)}))


def _lfm(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    task = make_task(config, seed)

    def relearner(relearner: nn.Module) -> dict[str, float]:
        return {"accuracy": accuracy(relearner, *task.test)}

    def weights(validator: nn.Module, learner: nn.Module) -> dict[str, Tensor]:
        a = training_weights(cast(Validator, validator), learner, task.train, task.valid)
        parts = {"clean": a[~task.corrupted], "corrupted": a[task.corrupted]}
        return {name: part for name, part in parts.items() if len(part)}

    functions: dict[str, Callable[..., Any]] = {
        "learner": _accuracy_of_learner(task),
        "relearner": relearner,
        "weights": weights,
    }
    return Setup(lfm_engine(config, seed, task), config.spread_out(functions))


def _accuracy_of_learner(task: Task) -> Callable[..., Any]:
    def of(learner: nn.Module) -> dict[str, float]:
        return {"accuracy": accuracy(learner, *task.test)}

    return of


recipe = LFMReweighting()
