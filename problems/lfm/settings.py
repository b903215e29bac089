"""The settings of the validator's optimizer in Learning From Mistakes."""

from __future__ import annotations

from pydantic import Field

from problems.training import Upper


class Settings(Upper):
    """Rates of the validator; the defaults were chosen on the digits set with 40 % flip noise."""

    encoder_rate: float = Field(1e-3, ge=0, description="rate of the encoder V")
    coefficient_rate: float = Field(0.2, ge=0, description="rate of the coefficients r")
    stage1_rate: float = Field(1e-2, ge=0, description="rate of the stage-1 weights b")
