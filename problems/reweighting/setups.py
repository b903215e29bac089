"""One stage for each program: its engine, what is looked at, and what is kept at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import mlo
from mlo.errors import ConfigurationError
from mlo.recipe import Carry, Setup
from problems.evaluation import class_accuracy, confusion, predict
from problems.lfm import lfm_problems, similarity_summary, training_weights
from problems.reweighting import programs
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.losses import example_losses, scaled
from problems.reweighting.scene import Scene

Networks = Mapping[str, nn.Module]
"""Problem -> its classifier, of those that are looked at."""


def setup(
    scene: Scene,
    stage: str,
    engine: mlo.Engine,
    networks: Networks,
    *,
    ticks: int | None = None,
    weights: Callable[[], Tensor] | None = None,
    looks: Mapping[str, Callable[[], Mapping[str, float]]] = MappingProxyType({}),
    more: Callable[[], Mapping[str, Any]] = dict,
) -> Setup:
    """Make a stage in which the classifiers are looked at and, where there are any, the weights.

    At its end it hands on, under its name, what the data were, the confusion matrix of every
    classifier on the test set, which training examples with which labels there were, and their
    weights.

    Args:
        scene: the repetition.
        stage: its name.
        engine: the program.
        networks: the classifiers.
        ticks: length of the stage; that of the run without it.
        weights: gives the weights of all training examples, [N].
        looks: gives further metrics, by the name of the evaluation.
        more: gives what is handed on besides.
    """
    task = scene.task

    def looking(network: nn.Module) -> Callable[[], dict[str, float]]:
        def look() -> dict[str, float]:
            counts = _confusion(scene, network)
            right = counts.diagonal().sum().item() / len(task.test[1])
            worst = class_accuracy(counts).nan_to_num(1.0).min().item()
            return {"accuracy": right, "worst class": worst}

        return look

    functions: dict[str, Callable[..., Any]] = {
        name: looking(network) for name, network in networks.items()
    }
    functions |= looks
    if weights is not None:
        functions["weights"] = lambda: _parted(weights(), task.corrupted)

    def finish() -> dict[str, Any]:
        kept: dict[str, Any] = {
            "confusion": {name: _confusion(scene, network) for name, network in networks.items()},
            "data": scene.description(),
            "labels": task.train[1],
            "corrupted": task.corrupted,
            "positions": task.positions,
        }
        if weights is not None:
            kept["weights"] = weights()
        return {stage: kept, **more()}

    return Setup(engine, scene.config.spread_out(functions, ticks), finish)


def _confusion(scene: Scene, network: nn.Module) -> Tensor:
    x, labels = scene.task.test
    return confusion(predict(network, x, scene.prepare), labels)


def _parted(weights: Tensor, corrupted: Tensor) -> dict[str, Tensor]:
    """Weights of examples with right and with wrong labels, where there are any."""
    parts = {"clean": weights[~corrupted], "corrupted": weights[corrupted]}
    return {name: part for name, part in parts.items() if len(part)}


def plain(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Plain training; it hands its network to fine-tuning where that follows."""
    scene = Scene(config, seed, carry)
    network = scene.classifier()
    problems = programs.plain_problems(network, config.training, ticks=config.ticks)
    engine = scene.config.engine(problems, {"train": scene.train()})
    fine_tuned = "fine-tuning" in config.programs
    return setup(
        scene,
        "plain",
        engine,
        {"classifier": network},
        more=lambda: {"plain network": dict(network.state_dict())} if fine_tuned else {},
    )


def plain_with_valid(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Plain training that has the validation examples too."""
    scene = Scene(config, seed, carry)
    network = scene.classifier()
    problems = programs.plain_problems(network, config.training, ticks=config.ticks)
    x, labels = (torch.cat(pair) for pair in zip(scene.task.train, scene.task.valid, strict=True))
    engine = scene.config.engine(problems, {"train": scene.train((x, labels))})
    return setup(scene, "plain+valid", engine, {"classifier": network})


def fine_tuning(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """The network of plain training, trained further on the validation set alone."""
    scene = Scene(config, seed, carry)
    network = scene.classifier()
    network.load_state_dict(carry["plain network"])
    own = config.fine_tuning
    training = config.training.model_copy(update={"learning_rate": own.learning_rate})
    problems = programs.plain_problems(network, training, ticks=own.ticks)
    engine = scene.config.engine(problems, {"train": scene.valid()})
    return setup(scene, "fine-tuning", engine, {"classifier": network}, ticks=own.ticks)


def focal(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Training with the focal loss."""
    scene = Scene(config, seed, carry)
    network = scene.classifier()
    problems = programs.focal_problems(
        network, config.training, ticks=config.ticks, gamma=config.focal.gamma
    )
    engine = scene.config.engine(problems, {"train": scene.train()})
    return setup(scene, "focal", engine, {"classifier": network})


def class_balanced(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Training with classes weighted by their effective numbers."""
    scene = Scene(config, seed, carry)
    network = scene.classifier()
    problems = programs.class_balanced_problems(
        network,
        config.training,
        ticks=config.ticks,
        counts=scene.task.counts,
        beta=config.class_balanced.beta,
    )
    engine = scene.config.engine(problems, {"train": scene.train()})
    return setup(scene, "class-balanced", engine, {"classifier": network})


def ensemble(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Two networks trained plainly, whose probabilities are averaged."""
    scene = Scene(config, seed, carry)
    networks = [scene.classifier(), scene.classifier("second")]
    problems = programs.ensemble_problems(networks, config.training, ticks=config.ticks)
    engine = scene.config.engine(problems, {"train": scene.train()})
    return setup(scene, "ensemble", engine, {"members": problems[0].module})


def l2rw(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Learning to Reweight; its weights live for a batch only, so none are looked at."""
    scene = Scene(config, seed, carry)
    method = scene.config.method()
    if "moves" not in method.needs:
        raise ConfigurationError(
            f"hypergradient: expected a method that differentiates a step with l2rw, got "
            f"'{config.hypergradient}'; at weights of zero, where it begins, there is no Hessian "
            "to solve with. Choose one-step"
        )
    network = scene.classifier()
    problems = programs.l2rw_problems(
        network,
        config.training,
        batch_size=config.train_batch,
        ticks=config.ticks,
        hypergradient=method,
    )
    return setup(
        scene, "l2rw", scene.config.engine(problems, scene.both()), {"classifier": network}
    )


def meta_weight_net(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Meta-Weight-Net."""
    scene = Scene(config, seed, carry)
    settings = config.meta_weight_net
    network = scene.classifier()
    weight_net = scene.weight_net(settings.hidden)
    problems = programs.meta_weight_net_problems(
        network,
        weight_net,
        config.training,
        settings,
        ticks=config.ticks,
        hypergradient=scene.config.method(),
    )

    @torch.no_grad()
    def weights() -> Tensor:
        x, labels = scene.task.train
        found = weight_net.weights(example_losses(predict(network, x, scene.prepare), labels))
        return scaled(found, unit_mean=settings.unit_mean)

    engine = scene.config.engine(problems, scene.both())
    return setup(scene, "meta-weight-net", engine, {"classifier": network}, weights=weights)


def learned_weights(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """A free weight for every training example."""
    scene = Scene(config, seed, carry)
    settings = config.learned_weights
    network = scene.classifier()
    free = programs.ExampleWeights(len(scene.task.train[1]), settings.initial)
    problems = programs.learned_problems(
        network,
        free,
        config.training,
        settings,
        ticks=config.ticks,
        hypergradient=scene.config.method(),
    )

    @torch.no_grad()
    def weights() -> Tensor:
        return scaled(torch.sigmoid(free.logits), unit_mean=settings.unit_mean)

    engine = scene.config.engine(problems, scene.both())
    return setup(scene, "learned-weights", engine, {"classifier": network}, weights=weights)


def lfm(config: ReweightingConfig, seed: int, carry: Carry) -> Setup:
    """Learning From Mistakes; learner and relearner start alike, where plain training does."""
    scene = Scene(config, seed, carry)
    own, task = config.lfm, scene.task
    learner, relearner, validator = scene.classifier(), scene.classifier(), scene.validator()
    problems = lfm_problems(
        learner,
        relearner,
        validator,
        ticks=config.ticks,
        training=config.training,
        settings=own,
        hypergradient=scene.config.method(),
        constant=own.constant,
    )
    engine = scene.config.engine(problems, scene.both())
    return setup(
        scene,
        "lfm",
        engine,
        {"learner": learner, "relearner": relearner},
        weights=lambda: training_weights(validator, learner, task.train, task.valid, scene.prepare),
        looks={
            "similarity": lambda: similarity_summary(
                validator, task.train, task.valid, scene.prepare
            )
        },
    )
