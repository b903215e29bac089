"""The configuration of the recipe `lfm-reweighting`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from problems.experiment import Experiment
from problems.lfm.settings import Settings
from problems.lfm.validator import CoefficientKey
from problems.setting_kinds import FileName
from problems.training import Training

_TRAINING, _RATES = Training(), Settings()


class ReweightingConfig(Experiment):
    """Data, networks, rates and method of one reweighting experiment."""

    dataset: Literal["digits"] = Field("digits", description="images and labels")
    data: FileName | None = Field(
        None,
        description="an .npz file of images x [N, C, H, W] and labels y [N] instead of the data "
        "set; from the working directory, else from the folder in MLO_DATA",
    )

    width: int = Field(16, ge=1, description="channels of the first convolution")
    features: int = Field(64, ge=1, description="length of the feature vectors")
    batch_norm: bool = Field(False, description="normalize the convolutions over the batch")
    encoder_weights: FileName | None = Field(
        None, description="file of weights that the encoder starts from, looked for like data"
    )
    keyed_by: CoefficientKey = Field("example", description="what a coefficient r belongs to")
    initial_coefficient: float = Field(1.0, description="start value of every coefficient")
    temperature: float = Field(0.1, gt=0, description="temperature of the similarity")
    normalize: bool = Field(True, description="compare features by their cosine")
    stage1_weights: bool = Field(False, description="learn weights for the learner's examples too")

    learning_rate: float = Field(
        _TRAINING.learning_rate, ge=0, description="SGD rate of the classifiers"
    )
    momentum: float = Field(_TRAINING.momentum, ge=0, lt=1, description="their momentum")
    weight_decay: float = Field(_TRAINING.weight_decay, ge=0, description="their weight decay")
    encoder_rate: float = Field(_RATES.encoder_rate, ge=0, description="Adam rate of the encoder")
    coefficient_rate: float = Field(
        _RATES.coefficient_rate, ge=0, description="Adam rate of the coefficients"
    )
    stage1_rate: float = Field(
        _RATES.stage1_rate, ge=0, description="Adam rate of the stage-1 weights"
    )
    validator_every: int = Field(
        _RATES.every, ge=1, description="ticks between two moves of the validator"
    )

    @model_validator(mode="after")
    def _long_enough(self) -> ReweightingConfig:
        if self.validator_every > self.ticks:
            raise ValueError(
                f"validator_every: expected at most ticks = {self.ticks}, "
                f"got {self.validator_every}; the validator would never move"
            )
        return self

    @property
    def training(self) -> Training:
        """How the classifiers are trained."""
        return Training(
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    @property
    def settings(self) -> Settings:
        """How the validator is trained."""
        return Settings(
            encoder_rate=self.encoder_rate,
            coefficient_rate=self.coefficient_rate,
            stage1_rate=self.stage1_rate,
            every=self.validator_every,
        )
