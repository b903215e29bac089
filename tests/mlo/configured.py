"""Configurations that the tests of settings share, and what is said of those that do not fit."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator

from mlo.configuration import RecipeConfig, Section, configure
from mlo.errors import ConfigurationError


class Network(Section):
    width: int = Field(16, ge=1)
    layers: list[int] = Field([1, 2])


class Example(RecipeConfig):
    ticks: int = Field(10, ge=1, description="how long; 100 % by default")
    rate: float = Field(0.1, ge=0, le=1)
    noise: Literal["none", "flip", "uniform"] = "flip"
    imbalance: float | None = 0.5
    batch_norm: bool = False
    network: Network = Network()

    @field_validator("ticks")
    @classmethod
    def _not_thirteen(cls, value: int) -> int:
        if value == 13:
            raise ValueError("thirteen is not allowed")
        return value


class Demanding(Example):
    path: str


class Precision(enum.Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Encoder(Section):
    channels: Annotated[int, Field(ge=1, le=512)] = 16
    dropout: float = Field(0.0, ge=0, lt=1)
    precision: Precision = Precision.SINGLE
    stem: Network = Network()


class Descent(Section):
    kind: Literal["descent"]
    momentum: float = Field(0.9, ge=0, lt=1)


class Adaptive(Section):
    kind: Literal["adaptive"]
    betas: tuple[float, int] = (0.9, 2)
    amplify: bool = False


class Cosine(Section):
    period: int = Field(ge=1)
    floor: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _below_its_period(self) -> Cosine:
        if self.floor > self.period:
            raise ValueError(f"expected a floor of at most {self.period},\n   got {self.floor}")
        return self


class Steps(Section):
    milestones: list[int]
    factor: float = Field(0.1, gt=0)


class Experiment(RecipeConfig):
    """Every kind of nesting."""

    encoder: Encoder = Encoder()
    teacher: Encoder | None = None
    blocks: list[Network] = Field([])
    heads: dict[str, Encoder] = Field({})
    optimizer: Descent | Adaptive = Field(Descent(kind="descent"), discriminator="kind")
    rivals: list[Annotated[Descent | Adaptive, Field(discriminator="kind")]] = Field([])
    schedule: Cosine | Steps | None = None
    batch: Annotated[int, Field(ge=1)] | Literal["whole", "automatic"] = "whole"
    crop: tuple[int, int] | None = None
    shifts: tuple[float, ...] = ()
    levels: dict[int, float] = Field({})
    step_size: float = Field(0.1, gt=0, alias="learning-rate")
    bound: float = Field(1.0, allow_inf_nan=True)
    label: str = Field("plain", pattern="^[a-z]*$")


WHOLE: dict[str, Any] = {
    "seeds": 2,
    "first_seed": 5,
    "threads": 1,
    "encoder": {
        "channels": 8,
        "dropout": 0.1,
        "precision": "double",
        "stem": {"width": 3, "layers": [4, 5]},
    },
    "teacher": {"channels": 8, "precision": "single"},
    "blocks": [{"width": 3}, {"width": 4, "layers": [2]}],
    "heads": {"left": {"dropout": 0.2}, "right": {"stem": {"width": 3}}},
    "optimizer": {"kind": "adaptive", "betas": [0.5, 3], "amplify": True},
    "rivals": [{"kind": "descent", "momentum": 0.5}],
    "schedule": {"period": 10, "floor": 0.5},
    "batch": 32,
    "crop": [3, 4],
    "shifts": [0.5, 1.5],
    "levels": {"3": 0.5},
    "learning-rate": 0.2,
    "bound": 3.5,
    "label": "abc",
}
"""Settings of an `Experiment` that fit, with something in every table."""


def complaint(values: dict[str, Any], model: type[BaseModel] = Example) -> str:
    """The message about settings that do not fit."""
    with pytest.raises(ConfigurationError) as caught:
        configure(model, values, title="example")
    return str(caught.value)


def reasons(values: dict[str, Any], model: type[BaseModel] = Experiment) -> dict[str, str]:
    """What is said in the lines of the message, by the paths that the lines begin with."""
    first, *lines = complaint(values, model).splitlines()
    said = dict(line.strip().split(": ", 1) for line in lines)
    assert len(said) == len(lines), "two lines have one path"
    assert all(line.startswith("  ") for line in lines)
    counted = "a setting does" if len(lines) == 1 else f"{len(lines)} settings do"
    assert first == f"example: {counted} not fit:"
    return said
