"""One repetition of the reweighting experiment: plain training and Learning From Mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mlo.callbacks import Callback
from mlo.engine import Engine
from problems.lfm.config import ReweightingConfig
from problems.lfm.evaluation import WeightGap, accuracy, training_weights, weight_gap
from problems.lfm.programs import lfm_engine, plain_engine
from problems.lfm.task import Labelled, Task, make_task
from problems.lfm.validator import Validator

NETWORKS = ("plain", "plain+val", "learner", "relearner")
"""What is compared: plain training, the same on the validation images too, and LFM's networks."""

RUNS = ("plain", "plain+val", "LFM")
"""The runs of a repetition; the last one trains two networks."""

Watch = Callable[[str], tuple[Callback, ...]]
"""Makes the callbacks of a run, given its name."""

Curve = list[tuple[int, float]]
"""Ticks made, and test accuracy then."""


class Repetition(NamedTuple):
    """What one seed brought.

    Attributes:
        seed: the seed.
        accuracy: test accuracy of every network after the last tick.
        curves: the same on the way there, to look at; nothing is selected by it.
        weights: final weight a_i of every training example, [N].
        corrupted: mask of the training examples with a wrong label, [N].
    """

    seed: int
    accuracy: dict[str, float]
    curves: dict[str, Curve]
    weights: Tensor
    corrupted: Tensor

    @property
    def gap(self) -> WeightGap | None:
        """Mean weights of right and wrong labels; None where one of the two does not occur."""
        both = self.corrupted.any() and not self.corrupted.all()
        return weight_gap(self.weights, self.corrupted) if both else None


def run_repetition(config: ReweightingConfig, seed: int, watch: Watch) -> Repetition:
    """Make all runs of a seed: the same split, noise, start and order of the batches for each.

    Args:
        config: the experiment.
        seed: which repetition.
        watch: makes the callbacks of each run.

    Returns:
        Accuracies and weights.
    """
    task = make_task(config, seed)

    def of_learner(learner: nn.Module) -> dict[str, float]:
        return {"learner": accuracy(learner, *task.test)}

    def of_both(learner: nn.Module, relearner: nn.Module) -> dict[str, float]:
        return {"relearner": accuracy(relearner, *task.test), **of_learner(learner)}

    plain = plain_engine(config, seed, task.train)
    more = plain_engine(config, seed, _joined(task))
    lfm = lfm_engine(config, seed, task)
    curves = {
        "plain": _train(config, plain, of_learner, watch("plain"))["learner"],
        "plain+val": _train(config, more, of_learner, watch("plain+val"))["learner"],
        **_train(config, lfm, of_both, watch("LFM")),
    }
    validator = cast(Validator, lfm.problems["validator"].module)
    learner = lfm.problems["learner"].module
    weights = training_weights(validator, learner, task.train, task.valid)
    last = {name: curves[name][-1][1] for name in NETWORKS}
    return Repetition(seed, last, curves, weights.cpu(), task.corrupted.cpu())


def _train(
    config: ReweightingConfig,
    engine: Engine,
    test: Callable[..., dict[str, float]],
    callbacks: tuple[Callback, ...],
) -> dict[str, Curve]:
    """Run an engine to the end and return the curve of every metric of the test."""
    result = engine.run(
        config.ticks,
        callbacks=callbacks,
        evaluate={"test": (test, math.ceil(config.ticks / config.evaluations))},
        record_every=config.ticks,
    )
    points = [(record.tick + 1, record.metrics) for record in result.evaluations]
    return {name: [(tick, metrics[name]) for tick, metrics in points] for name in points[0][1]}


def _joined(task: Task) -> Labelled:
    images, labels = (torch.cat(pair) for pair in zip(task.train, task.valid, strict=True))
    return images, labels
