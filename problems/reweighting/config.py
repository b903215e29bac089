"""The configuration of the recipe `reweighting`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mlo.configuration import Section
from problems.experiment import Experiment
from problems.lfm.settings import Settings
from problems.lfm.weighing import Weighing
from problems.networks import Network
from problems.reweighting.programs import LearnedWeightsSettings, MetaWeightNetSettings
from problems.sources import Source
from problems.training import Training

ProgramName = Literal[
    "plain",
    "plain+valid",
    "focal",
    "class-balanced",
    "fine-tuning",
    "ensemble",
    "l2rw",
    "meta-weight-net",
    "learned-weights",
    "lfm",
]


class Focal(Section):
    """The focal loss."""

    gamma: float = Field(1.0, ge=0, description="focusing exponent")


class ClassBalanced(Section):
    """Classes weighted by their effective numbers of examples."""

    beta: float = Field(0.9999, ge=0, lt=1, description="how much more a new example adds")


class FineTuning(Section):
    """Further training of the plain network on the clean validation set."""

    ticks: int = Field(100, ge=1, description="batches of validation examples")
    learning_rate: float = Field(0.01, ge=0, description="SGD rate at the start of it")


class LFM(Settings, Weighing):
    """Learning From Mistakes: encoder, weights, and the validator's optimizer."""

    stage1_weights: bool = Field(False, description="learn weights for the learner's examples too")
    initial_stage1_weight: float = Field(1.0, description="start value of every such weight")


_UPPER = {
    "meta-weight-net": "meta_weight_net",
    "learned-weights": "learned_weights",
    "lfm": "lfm",
}
"""Program with an optimizer of its own above -> its settings."""


class ReweightingConfig(Experiment, Source):
    """Data, networks, rates, programs and method of one experiment."""

    programs: tuple[ProgramName, ...] = Field(
        ("plain", "meta-weight-net", "lfm"), description="what is compared"
    )

    held_per_class: int | None = Field(
        None,
        ge=1,
        description="look at so many clean examples a class, held out of training, and not at "
        "the test set: for choosing settings",
    )
    network: Network = Field(Network(), description="the classifiers")
    training: Training = Field(Training(), description="how classifiers are trained")
    focal: Focal = Field(Focal(), description="the focal loss")
    class_balanced: ClassBalanced = Field(ClassBalanced(), description="effective numbers")
    fine_tuning: FineTuning = Field(FineTuning(), description="further training")
    meta_weight_net: MetaWeightNetSettings = Field(
        MetaWeightNetSettings(), description="Meta-Weight-Net"
    )
    learned_weights: LearnedWeightsSettings = Field(
        LearnedWeightsSettings(), description="a free weight an example"
    )
    lfm: LFM = Field(LFM(), description="Learning From Mistakes")

    @field_validator("programs", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """Names with commas between them are a list too."""
        return given.split(",") if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits_together(self) -> ReweightingConfig:
        if not self.programs or len(set(self.programs)) < len(self.programs):
            raise ValueError(
                f"programs: expected at least 1, and each once, got {list(self.programs)}"
            )
        if "l2rw" in self.programs and not self.lookahead:
            raise ValueError(
                "lookahead: expected true with l2rw, whose weights are made for the batch that the "
                "classifier then moves on, got false"
            )
        for program, section in _UPPER.items():
            every = getattr(self, section).every
            if program in self.programs and every > self.ticks:
                raise ValueError(
                    f"{section}.every: expected at most ticks = {self.ticks}, got {every}; the "
                    "upper problem would never move"
                )
        return self
