"""The settings of the upper problems of architecture search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from problems.training import Training, Upper

DARTS_TRAINING = Training(
    learning_rate=0.025, floor=1e-3, momentum=0.9, weight_decay=3e-4, clip_norm=5.0
)
"""SGD of the network in the search of DARTS."""

LFM_TRAINING = Training(
    learning_rate=0.01, floor=2.5e-4, momentum=0.9, weight_decay=1e-4, clip_norm=5.0
)
"""SGD of learner and relearner in the search of Learning From Mistakes."""


class ArchitectureSettings(Upper):
    """Adam of the architecture; the defaults are those of DARTS, whose rate is constant."""

    weight_decay: float = Field(1e-3, ge=0, description="weight decay of the architecture")
    schedule: Literal["cosine", "constant"] = Field(
        "constant", description="whether its rates fall to zero as half a cosine"
    )
    rate: float = Field(3e-4, ge=0, description="rate of the architecture A")


class ArchitectSettings(ArchitectureSettings):
    """Adam of architecture, encoder and coefficients; the defaults are those of LFM's authors.

    One bound on the norm of the gradient holds for all three together.
    """

    weight_decay: float = Field(1e-5, ge=0, description="weight decay of the architecture")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="whether its rates fall to zero as half a cosine"
    )
    floor: float = Field(2.5e-4, ge=0, description="rate at which the cosine of each rate ends")
    clip_norm: float | None = Field(5.0, gt=0, description="bound on the norm of its gradient")
    rate: float = Field(1e-3, ge=0, description="rate of the architecture A")
    encoder_rate: float = Field(1e-2, ge=0, description="rate of the encoder V")
    coefficient_rate: float = Field(1e-2, ge=0, description="rate of the coefficients r")
    validator_weight_decay: float = Field(
        1e-4, ge=0, description="weight decay of encoder and coefficients"
    )
