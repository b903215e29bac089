"""What all programs of one repetition are made of: data, streams and networks, by its seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import mlo
from mlo.hypergradients.registry import make_method
from problems.datasets import DataSet, Labelled, load_data_set
from problems.datasets.augmentation import Transform
from problems.datasets.preparation import preparations
from problems.datasets.resident import ResidentStream
from problems.datasets.task import (
    Task,
    check_batch,
    draw_task,
    part_generator,
    part_seed,
)
from problems.models import make_classifier, make_encoder
from problems.reweighting.config import Network, ReweightingConfig

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@functools.lru_cache(maxsize=1)
def _loaded(name: str, path: str | None, size: int | None) -> DataSet:
    return load_data_set(name, path, size=size)


def data_set(config: ReweightingConfig) -> DataSet:
    """The data set of a run, which its stages share; nobody writes to it."""
    return _loaded(config.dataset, config.data, config.image_size)


class Scene:
    """One repetition of an experiment before anything is trained.

    Everything is drawn anew from configuration and seed, so all programs of a repetition start
    from the same networks and see the same examples in the same order.

    Args:
        config: the experiment.
        seed: of the repetition.

    Attributes:
        data: the whole data set.
        task: the data.
        augmented: makes stored inputs ready for training.
        prepared: makes them ready for measuring.

    Raises:
        MloError: (one of its kinds) data or networks do not fit the configuration.
    """

    def __init__(self, config: ReweightingConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.data = data = data_set(config)
        self.task: Task = draw_task(
            data,
            seed,
            noise=config.noise,
            rate=config.rate,
            imbalance=config.imbalance,
            validation_per_class=config.validation_per_class,
            test_fraction=config.test_fraction,
            held_per_class=config.held_per_class,
        ).to(config.device)
        check_batch("train_batch", config.train_batch, len(self.task.train[1]), seed)
        check_batch("valid_batch", config.valid_batch, len(self.task.valid[1]), seed)
        self.augmented, self.prepared = preparations(data, augment=config.augment)

    def prepare(self, x: Tensor) -> Tensor:
        """Inputs as networks are given them where nothing is drawn."""
        return x if self.prepared is None else self.prepared(x, torch.Generator())

    def classifier(self, part: str = "classifier") -> nn.Module:
        """A classifier at its start."""
        network = self.config.network
        return self.drawn(
            part,
            lambda: make_classifier(
                network.name, self.task.classes, self._shape, **_sizes(network)
            ),
        )

    def encoder(self, network: Network) -> nn.Module:
        """An encoder at its start."""
        return self.drawn(
            "encoder", lambda: make_encoder(network.name, self._shape, **_sizes(network))
        )

    def drawn(self, part: str, make: Callable[[], ModuleT]) -> ModuleT:
        """What `make` makes on the random state of one part; nobody else's is touched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(part_seed(self.seed, part))
            return make()

    def engine(self, problems: Sequence[mlo.Problem], streams: Mapping[str, Any]) -> mlo.Engine:
        """The program on its streams."""
        config = self.config
        return mlo.Engine(
            problems,
            streams,
            lookahead=config.lookahead and len(problems) > 1,
            device=config.device,
            guards=mlo.Guards(on_nonfinite=config.on_nonfinite),
        )

    def method(self) -> mlo.Hypergradient:
        """The hypergradient method of the problems that respond."""
        return make_method(self.config.hypergradient)

    def train(self, part: Labelled | None = None) -> ResidentStream:
        """Batches of the training set, or of another one in its place."""
        return self._stream(part or self.task.train, self.config.train_batch, "train")

    def valid(self) -> ResidentStream:
        """Batches of the clean validation set."""
        return self._stream(self.task.valid, self.config.valid_batch, "valid")

    def both(self) -> dict[str, ResidentStream]:
        """The streams of a program with an upper problem."""
        return {"train": self.train(), "valid": self.valid()}

    def _stream(self, part: Labelled, size: int, name: str) -> ResidentStream:
        transform: Transform | None = self.augmented
        return ResidentStream(
            *part,
            batch_size=size,
            generator=part_generator(self.seed, name),
            transform=transform,
        )

    def description(self) -> dict[str, Any]:
        """What the networks were trained on, for the records."""
        return {
            "source": self.data.source,
            "fingerprint": self.data.fingerprint,
            "counts": self.task.counts,
            "transition": self.task.transition,
        }

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.task.train[0].shape[1:])


def _sizes(network: Network) -> dict[str, Any]:
    if network.name != "small":
        return {}
    return {
        "width": network.width,
        "features": network.features,
        "batch_norm": network.batch_norm,
    }
