"""The configuration of the recipe `nas`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mlo.configuration import Section
from mlo.errors import ConfigurationError
from problems.experiment import RunSettings
from problems.lfm.weighing import Weighing
from problems.nas.named import genotype_of
from problems.nas.published import PUBLISHED
from problems.nas.settings import ArchitectSettings, ArchitectureSettings
from problems.sources import Source
from problems.training import Training

ProgramName = Literal["lfm", "darts", "darts-first-order", "random", "given"]

SEARCHED = ("lfm", "darts", "darts-first-order")
"""The programs that search; the others have their genotype from elsewhere."""

SpaceName = Literal["macro", "cell"]


class LFM(ArchitectSettings, Weighing):
    """Learning From Mistakes: optimizer of architecture, encoder and weights, and what they are."""

    rate: float = Field(1e-2, ge=0, description="rate of the architecture A, for a short search")


class DARTS(ArchitectureSettings):
    """The optimizer of the architecture in DARTS."""

    rate: float = Field(3e-3, ge=0, description="rate of the architecture A, for a short search")


class Weights(Training):
    """SGD of a network from scratch."""

    learning_rate: float = Field(0.025, ge=0, le=1e30, description="SGD rate of the network")
    weight_decay: float = Field(3e-4, ge=0, description="its weight decay")
    clip_norm: float | None = Field(5.0, gt=0, description="bound on the norm of a gradient")


class SearchWeights(Weights):
    """The same of search networks."""

    floor: float = Field(1e-3, ge=0, description="rate at which half a cosine ends")


class Search(Section):
    """The search for an architecture."""

    ticks: int = Field(300, ge=1, description="batches of the search")
    channels: int = Field(8, ge=1, description="channels of the first layer of the supernet")
    layers: int = Field(6, ge=1, description="layers of the supernet")
    train_batch: int = Field(64, ge=1, description="training examples in a batch")
    valid_batch: int = Field(64, ge=1, description="validation examples in a batch")
    train_portion: float = Field(
        0.5, gt=0, lt=1, description="share of the training set that weights are trained on"
    )
    training: SearchWeights = Field(SearchWeights(), description="how weights are trained")
    architecture: DARTS = Field(DARTS(), description="optimizer of the architecture in DARTS")
    lfm: LFM = Field(LFM(), description="Learning From Mistakes")


class Evaluation(Section):
    """The training of the network that was found, from scratch."""

    ticks: int = Field(600, ge=1, description="batches of the training")
    channels: int = Field(16, ge=1, description="channels of the first layer")
    layers: int | None = Field(None, ge=1, description="layers; those of the search without it")
    batch: int = Field(64, ge=1, description="training examples in a batch")
    stem: Literal["cifar", "imagenet"] = Field("cifar", description="first layers of cell networks")
    auxiliary: bool = Field(False, description="a second head two thirds of the way up")
    auxiliary_weight: float = Field(0.4, ge=0, description="weight of its loss")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="probability of dropping a path at the end of the training"
    )
    cutout: int | None = Field(None, ge=1, description="side of the square cut out of images")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share given to all classes alike")
    training: Weights = Field(Weights(), description="how it is trained")
    on: Literal["all", "search"] = Field(
        "all",
        description="train on all training examples and look at the test set, or train on the "
        "share that weights are trained on in the search and look at the other: for choosing",
    )


class NASConfig(RunSettings, Source):
    """Data, search space, programs, search and evaluation."""

    lookahead: bool = Field(
        False,
        description="search on trial moves first, as in the papers, at about 1.3 times the "
        "operations; else through the real moves, as to first order always",
    )
    programs: tuple[ProgramName, ...] = Field(("darts", "lfm"), description="what is compared")
    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="share of each class kept for test, where no set is given"
    )
    space: SpaceName = Field("macro", description="a chain of layers, or cells of DARTS")
    operations: tuple[str, ...] | None = Field(
        None, description="candidates of every layer or edge; those of the space without them"
    )
    nodes: int = Field(4, ge=1, description="intermediate nodes of a cell")
    genotype: str | None = Field(
        None,
        description="for the program 'given': a published name, a file, or the text itself; what "
        "is in a file is kept with the run",
    )
    search: Search = Field(Search(), description="the search")
    evaluation: Evaluation = Field(Evaluation(), description="the training from scratch")

    @field_validator("programs", "operations", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """Names with commas between them are a list too."""
        return given.split(",") if isinstance(given, str) else given

    @field_validator("genotype", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        """JSON on the command line is read as what it stands for."""
        return json.dumps(given) if isinstance(given, Mapping) else given

    @field_validator("genotype")
    @classmethod
    def _its_text(cls, given: str | None) -> str | None:
        """A run that goes on does not depend on a file that may have changed meanwhile."""
        if given is None or given in PUBLISHED:
            return given
        try:
            return genotype_of(given).to_json()
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _fits_together(self) -> NASConfig:
        if not self.programs or len(set(self.programs)) < len(self.programs):
            raise ValueError(
                f"programs: expected at least 1, and each once, got {list(self.programs)}"
            )
        if ("given" in self.programs) != (self.genotype is not None):
            raise ValueError(
                "genotype: expected one with the program 'given' and none without it, got "
                f"{self.genotype!r} and {list(self.programs)}"
            )
        if self.space == "cell" and self.search.layers < 3 and self.searches:
            raise ValueError(
                "search.layers: expected at least 3 with cells, so that one is a normal cell, got "
                f"{self.search.layers}"
            )
        if self.evaluation.cutout is not None and not self.cuts:
            raise ValueError(
                "evaluation.cutout: expected none where images are not augmented, got "
                f"{self.evaluation.cutout} with '{self.dataset}' and augment={self.augment}"
            )
        for program, section in {"lfm": "lfm", "darts": "architecture"}.items():
            every = getattr(self.search, section).every
            if every > self.search.ticks and any(p.startswith(program) for p in self.programs):
                raise ValueError(
                    f"search.{section}.every: expected at most search.ticks = {self.search.ticks}, "
                    f"got {every}; the architecture would never move"
                )
        return self

    @property
    def cuts(self) -> bool:
        """Whether a square can be cut out of what networks are trained on."""
        return self.augment and self.dataset not in ("digits", "mnist1d")

    @property
    def searches(self) -> bool:
        """Whether one of the programs searches."""
        return any(program in SEARCHED for program in self.programs)

    @property
    def evaluation_layers(self) -> int:
        """Layers of the network that is trained from scratch."""
        return self.evaluation.layers or self.search.layers
