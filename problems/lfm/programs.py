"""The two programs that a repetition compares, ready to run on its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn
from torch.utils.data import DataLoader

from mlo.engine import Engine
from mlo.weights import load_weights
from problems.datasets import stream
from problems.datasets.sets import Labelled
from problems.datasets.task import Task, drawn, part_generator
from problems.lfm.config import ReweightingConfig
from problems.lfm.reweighting import lfm_problems, plain_problems
from problems.lfm.validator import Validator
from problems.models import conv_classifier, conv_encoder
from problems.naming import blaming

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def plain_engine(config: ReweightingConfig, seed: int, train: Labelled, classes: int) -> Engine:
    """Build plain training of the problem `learner`.

    Args:
        config: networks, rates and batches.
        seed: decides the start and the order of the batches.
        train: images and labels to train on.
        classes: number of classes, of which some may be lost to noise.
    """
    channels = train[0].shape[1]
    problems = plain_problems(
        _start(seed, "classifier", lambda: _classifier(config, classes, channels)),
        ticks=config.ticks,
        training=config.training,
    )
    data = {"train": _stream(train, config.train_batch, seed, "train")}
    return config.engine(problems, data)


def lfm_engine(config: ReweightingConfig, seed: int, task: Task) -> Engine:
    """Build Learning From Mistakes; both classifiers start where plain training starts.

    Args:
        config: networks, rates, batches and hypergradient method.
        seed: decides the start and the order of the batches.
        task: the data.
    """
    sizes = task.classes, task.train[0].shape[1]
    problems = lfm_problems(
        _start(seed, "classifier", lambda: _classifier(config, *sizes)),
        _start(seed, "classifier", lambda: _classifier(config, *sizes)),
        _start(seed, "encoder", lambda: _validator(config, task)),
        ticks=config.ticks,
        training=config.training,
        settings=config.settings,
        hypergradient=config.method(),
    )
    data = {
        "train": _stream(task.train, config.train_batch, seed, "train"),
        "valid": _stream(task.valid, config.valid_batch, seed, "valid"),
    }
    return config.engine(problems, data)


def _classifier(config: ReweightingConfig, classes: int, channels: int) -> nn.Module:
    return conv_classifier(
        classes,
        channels=channels,
        width=config.width,
        features=config.features,
        batch_norm=config.batch_norm,
    )


def _encoder(config: ReweightingConfig, channels: int) -> nn.Module:
    encoder = conv_encoder(
        channels=channels,
        width=config.width,
        features=config.features,
        batch_norm=config.batch_norm,
    )
    if config.encoder_weights is not None:
        with blaming("encoder_weights"):
            load_weights(encoder, config.encoder_weights)
    return encoder


def _validator(config: ReweightingConfig, task: Task) -> Validator:
    by_example = config.keyed_by == "example"
    return Validator(
        _encoder(config, task.train[0].shape[1]),
        coefficients=len(task.valid[1]) if by_example else config.valid_batch,
        keyed_by=config.keyed_by,
        temperature=config.temperature,
        normalize=config.normalize,
        initial_coefficient=config.initial_coefficient,
        stage1_weights=len(task.train[1]) if config.stage1_weights else None,
    )


def _start(seed: int, part: str, make: Callable[[], ModuleT]) -> ModuleT:
    """What `make` makes on the random state of a part."""
    with drawn(seed, part):
        return make()


def _stream(part: Labelled, batch_size: int, seed: int, name: str) -> DataLoader:
    return stream(*part, batch_size=batch_size, generator=part_generator(seed, name))
