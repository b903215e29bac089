"""What all programs of one repetition are made of: data, streams and networks, by its seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from problems.datasets import Labelled
from problems.datasets.preparation import measuring, preparations
from problems.datasets.resident import ResidentStream
from problems.datasets.task import drawn, part_generator
from problems.lfm import Validator
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.programs import WeightNet


class Scene:
    """One repetition of an experiment before anything is trained.

    Everything is drawn anew from configuration and seed, so all programs of a repetition start
    from the same networks and see the same examples in the same order.

    Args:
        config: the experiment.
        seed: of the repetition.
        carry: what earlier stages of the repetition have handed on, if any.

    Attributes:
        data: the whole data set.
        task: the data.
        augmented: makes stored inputs ready for training.
        prepare: makes them ready for measuring, where nothing is drawn.

    Raises:
        MloError: (one of its kinds) data or networks do not fit the configuration.
    """

    def __init__(
        self, config: ReweightingConfig, seed: int, carry: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.seed = config, seed
        self.data = data = config.load(carry)
        self.task = config.task(data, seed, held_per_class=config.held_per_class)
        self.augmented, _ = preparations(data, augment=config.augment)
        self.prepare = measuring(data)

    def classifier(self, part: str = "classifier") -> nn.Module:
        """A classifier at its start."""
        network, classes = self.config.network, self.task.classes
        return network.classifier(classes, self._shape, seed=self.seed, part=part)

    def validator(self) -> Validator:
        """What decides the weights of Learning From Mistakes, at its start."""
        own, task = self.config.lfm, self.task
        return own.validator(
            self._shape,
            seed=self.seed,
            examples=len(task.valid[1]),
            slots=self.config.valid_batch,
            stage1_weights=len(task.train[1]) if own.stage1_weights else None,
            initial_stage1_weight=own.initial_stage1_weight,
        )

    def weight_net(self, hidden: int) -> WeightNet:
        """Meta-Weight-Net's function of the loss at its start."""
        with drawn(self.seed, "upper"):
            return WeightNet(hidden)

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
        return ResidentStream(
            *part,
            batch_size=size,
            generator=part_generator(self.seed, name),
            transform=self.augmented,
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
