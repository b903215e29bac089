"""The optimizers' settings of a reweighting run, the same for Learning From Mistakes and plain."""

from __future__ import annotations

from dataclasses import dataclass

from mlo.errors import ConfigurationError


@dataclass(frozen=True)
class Settings:
    """Rates and schedules; the defaults were chosen on the digits set with 40 % flip noise.

    All rates fall to zero over the run as half a cosine.

    Attributes:
        learning_rate: SGD rate of learner and relearner, and of plain training.
        momentum: SGD momentum of the same.
        weight_decay: SGD weight decay of the same.
        encoder_rate: Adam rate of the encoder V.
        coefficient_rate: Adam rate of the coefficients r.
        stage1_rate: Adam rate of the stage-1 weights b, where the validator has them.
        validator_betas: Adam's decay rates for the validator.
        validator_every: The validator moves once in so many ticks.
    """

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    encoder_rate: float = 1e-3
    coefficient_rate: float = 0.2
    stage1_rate: float = 1e-2
    validator_betas: tuple[float, float] = (0.5, 0.999)
    validator_every: int = 1

    def __post_init__(self) -> None:
        rates = ("learning_rate", "encoder_rate", "coefficient_rate", "stage1_rate")
        for name in (*rates, "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigurationError(
                    f"{name}: expected a number of at least 0, found {getattr(self, name)}. "
                    "Use 0 to switch it off."
                )
        if self.validator_every < 1:
            raise ConfigurationError(
                f"validator_every: expected at least 1, found {self.validator_every}. "
                "Use 1 to move the validator in every tick."
            )
