"""The configuration of the recipe `lfm-reweighting`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlo.configuration import RecipeConfig
from mlo.devices import find_device
from mlo.errors import DataError, DeviceError, listed, nearest
from mlo.hypergradients.registry import method_names
from problems.datasets import find_file
from problems.lfm.settings import Settings
from problems.lfm.validator import CoefficientKey
from problems.training import Training

_TRAINING, _RATES = Training(), Settings()


class ReweightingConfig(RecipeConfig):
    """Data, networks, rates and method of one reweighting experiment."""

    seeds: int = Field(3, ge=1, description="repetitions, each with a seed of its own")
    ticks: int = Field(400, ge=1, description="batches that every network is trained on")
    evaluations: int = Field(20, ge=1, description="points of the accuracy curves")
    threads: int = Field(
        1, ge=1, description="CPU threads; the last digits of the results depend on their number"
    )
    device: str = Field("cpu", description="where to compute, such as cpu or cuda")

    dataset: Literal["digits"] = Field("digits", description="images and labels")
    data: str | None = Field(
        None,
        description="an .npz file of images x [N, C, H, W] and labels y [N] instead of the data "
        "set; from the working directory, else from the folder in MLO_DATA",
    )
    noise: Literal["none", "flip", "uniform"] = Field(
        "flip", description="how training labels become wrong"
    )
    rate: float = Field(0.4, ge=0, le=1, description="probability of a wrong or redrawn label")
    imbalance: float | None = Field(
        None, gt=0, le=1, description="size of the rarest training class over the largest"
    )
    validation_per_class: int = Field(10, ge=1, description="clean validation images of each class")
    test_fraction: float = Field(0.25, gt=0, lt=1, description="share of each class kept for test")
    train_batch: int = Field(100, ge=1, description="training images in a batch")
    valid_batch: int = Field(100, ge=1, description="validation images in a batch")

    width: int = Field(16, ge=1, description="channels of the first convolution")
    features: int = Field(64, ge=1, description="length of the feature vectors")
    batch_norm: bool = Field(False, description="normalize the convolutions over the batch")
    encoder_weights: str | None = Field(
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
    hypergradient: str = Field("one-step", description="method, by a name that 'mlo list' shows")
    on_nonfinite: Literal["raise", "skip", "rollback", "ignore"] = Field(
        "raise", description="what is done about a NaN or an infinity"
    )
    lookahead: bool = Field(
        True, description="trial moves first, as in the paper; else through the real moves"
    )

    @field_validator("device")
    @classmethod
    def _usable_device(cls, name: str) -> str:
        try:
            return str(find_device(name)) if name != "cpu" else name
        except DeviceError as error:
            raise ValueError(str(error)) from error

    @field_validator("data", "encoder_weights")
    @classmethod
    def _found(cls, name: str | None) -> str | None:
        try:
            return None if name is None else find_file(name)
        except DataError as error:
            raise ValueError(str(error)) from error

    @field_validator("hypergradient")
    @classmethod
    def _known_method(cls, name: str) -> str:
        known = method_names()
        if name not in known:
            raise ValueError(f"expected one of {listed(known)}, got '{name}'{nearest(name, known)}")
        return name

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

    @property
    def noisy(self) -> bool:
        """Whether some training labels are wrong."""
        return self.noise != "none" and self.rate > 0
