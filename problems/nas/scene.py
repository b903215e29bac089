"""What all stages of one repetition are made of: data, space, streams and networks, by its seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from problems.datasets import Labelled
from problems.datasets.preparation import measuring, preparations
from problems.datasets.resident import ResidentStream
from problems.datasets.splits import portion_split
from problems.datasets.task import check_batch, drawn, part_generator
from problems.evaluation import accuracy
from problems.naming import blaming
from problems.nas.architect import Architect
from problems.nas.architecture import Architecture
from problems.nas.config import NASConfig
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.networks import make_network
from problems.nas.space import (
    DARTS_OPERATIONS,
    MACRO_OPERATIONS,
    CellSpace,
    MacroSpace,
    SearchSpace,
)
from problems.nas.supernet import make_supernet


class Shares(NamedTuple):
    """Three disjoint sets of examples.

    Attributes:
        train: what weights are trained on in the search.
        valid: what architectures are judged on in the search; both train the network found.
        test: measured at the end; nothing is selected by it.
    """

    train: Labelled
    valid: Labelled
    test: Labelled


class Scene:
    """One repetition before anything is trained; everything is drawn from configuration and seed.

    Args:
        config: the experiment.
        seed: of the repetition.
        carry: what earlier stages of the repetition have handed on, if any.

    Attributes:
        data: the whole data set.
        shares: its parts, on the device.
        space: the search space.

    Raises:
        MloError: (one of its kinds) data or space do not fit the configuration.
    """

    def __init__(
        self, config: NASConfig, seed: int, carry: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.seed = config, seed
        self.data = config.load(carry)
        self.shares = self._shares()
        self.space = space_of(config)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.shares.train[0].shape[1:])

    def supernet(self) -> nn.Module:
        """A search network at its start; each call gives the same."""
        search = self.config.search
        with blaming("search"), drawn(self.seed, "classifier"):
            return make_supernet(
                self.space,
                self.data.classes,
                self.shape,
                channels=search.channels,
                layers=search.layers,
            )

    def architecture(self) -> Architecture:
        """Architecture parameters at their start."""
        with drawn(self.seed, "upper"):
            return Architecture(self.space)

    def architect(self) -> Architect:
        """Architecture, encoder and coefficients of Learning From Mistakes at their start."""
        search = self.config.search
        with blaming("search"):
            validator = search.lfm.validator(
                self.shape,
                seed=self.seed,
                examples=len(self.shares.valid[1]),
                slots=search.valid_batch,
            )
        return Architect(self.architecture(), validator)

    def random_genotype(self) -> Genotype | MacroGenotype:
        """A genotype of the space, each as likely as the others."""
        return self.space.random_genotype(part_generator(self.seed, "genotype"))

    def network(self, genotype: Genotype | MacroGenotype) -> nn.Module:
        """The network of a genotype at its start.

        Raises:
            ConfigurationError: the genotype, or the data, do not fit the settings.
        """
        evaluation, layers = self.config.evaluation, self.config.evaluation_layers
        if isinstance(genotype, MacroGenotype) and evaluation.layers is None:
            layers = len(genotype.layers)  # a chain that is given has its own
        with blaming("evaluation"), drawn(self.seed, "network"):
            return make_network(
                genotype,
                self.data.classes,
                self.shape,
                channels=evaluation.channels,
                layers=layers,
                auxiliary=evaluation.auxiliary,
                stem=evaluation.stem,
            )

    def searched(self) -> dict[str, ResidentStream]:
        """The streams of a search."""
        search = self.config.search
        return {
            "train": self._stream(self.shares.train, search.train_batch, "train", None),
            "valid": self._stream(self.shares.valid, search.valid_batch, "valid", None),
        }

    def trained_on(self) -> Labelled:
        """What the network that was found is trained on."""
        if self.config.evaluation.on == "search":
            return self.shares.train
        pairs = zip(self.shares.train, self.shares.valid, strict=True)
        x, labels = (torch.cat(pair) for pair in pairs)
        return x, labels

    def measured_on(self) -> Labelled:
        """What it is then measured on."""
        return self.shares.valid if self.config.evaluation.on == "search" else self.shares.test

    def evaluated(self) -> dict[str, ResidentStream]:
        """The stream of the training from scratch."""
        evaluation = self.config.evaluation
        part = self.trained_on()
        return {"train": self._stream(part, evaluation.batch, "retrain", evaluation.cutout)}

    def accuracy(self, network: nn.Module, part: Labelled, *given: object) -> float:
        """Share of right predictions in evaluation mode; the network is left as it was.

        Args:
            network: a discrete network, or a search network that is `given` mixing weights.
            part: inputs and labels.
            given: what else the network takes.
        """
        return accuracy(network, *part, measuring(self.data), *given)

    def description(self) -> dict[str, Any]:
        """What the networks were trained on, for the records."""
        return {"source": self.data.source, "fingerprint": self.data.fingerprint}

    def _shares(self) -> Shares:
        config, (x, labels) = self.config, self.data.train
        generator = part_generator(self.seed, "split")
        known = torch.arange(len(labels))
        tested = self.data.test
        if tested is None:
            with blaming("test_fraction"):
                test, known = portion_split(labels, config.test_fraction, generator)
            tested = x[test], labels[test]
        with blaming("search.train_portion"):
            train, valid = (
                known[part]
                for part in portion_split(labels[known], config.search.train_portion, generator)
            )
        if config.searches:
            check_batch("search.train_batch", config.search.train_batch, len(train), self.seed)
            check_batch("search.valid_batch", config.search.valid_batch, len(valid), self.seed)
        size = len(train) + (len(valid) if config.evaluation.on == "all" else 0)
        check_batch("evaluation.batch", config.evaluation.batch, size, self.seed)
        parts = ((x[train], labels[train]), (x[valid], labels[valid]), tested)
        return Shares(*((x.to(config.device), y.to(config.device)) for x, y in parts))

    def _stream(self, part: Labelled, size: int, name: str, cutout: int | None) -> ResidentStream:
        crop = "resized" if self.data.name == "imagenet" else "margin"
        augment = self.config.augment
        transform = preparations(self.data, augment=augment, cutout=cutout, crop=crop)[0]
        return ResidentStream(
            *part,
            batch_size=size,
            generator=part_generator(self.seed, name),
            transform=transform,
        )


def space_of(config: NASConfig) -> SearchSpace:
    """The search space of a configuration.

    Raises:
        ConfigurationError: an operation is unknown, or there is none to choose.
    """
    with blaming("operations"):
        given = config.operations
        if config.space == "cell":
            return CellSpace.darts(config.nodes, DARTS_OPERATIONS if given is None else given)
        layers = config.search.layers
        return MacroSpace.chain(layers, MACRO_OPERATIONS if given is None else given)
