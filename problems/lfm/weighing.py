"""The settings by which Learning From Mistakes weighs examples, and the validator they describe."""

from __future__ import annotations

from pydantic import Field

from mlo.configuration import Section
from problems.lfm.validator import CoefficientKey, Validator
from problems.models import load_encoder_weights
from problems.naming import blaming
from problems.networks import Network
from problems.setting_kinds import FileName


class Weighing(Section):
    """Encoder, similarity and coefficients."""

    encoder: Network = Field(Network(), description="the encoder V")
    encoder_weights: FileName | None = Field(
        None, description="file of weights that the encoder starts from"
    )
    frozen_encoder: bool = Field(False, description="leave the encoder as it starts")
    keyed_by: CoefficientKey = Field("example", description="what a coefficient r belongs to")
    initial_coefficient: float = Field(1.0, description="start value of every coefficient")
    temperature: float = Field(0.1, gt=0, description="temperature of the similarity")
    normalize: bool = Field(True, description="compare features by their cosine")
    offset: float = Field(0.0, description="offset inside the sigmoid of the weights")
    unit_mean: bool = Field(False, description="divide the weights of a batch by their mean")
    mistake_path: bool = Field(True, description="hypergradients go through the mistakes")

    @property
    def constant(self) -> tuple[str, ...]:
        """What the relearner takes as a constant: the learner, where no path is wanted."""
        return () if self.mistake_path else ("learner",)

    def validator(
        self,
        shape: tuple[int, ...],
        *,
        seed: int,
        examples: int,
        slots: int,
        stage1_weights: int | None = None,
        initial_stage1_weight: float = 1.0,
    ) -> Validator:
        """The validator at the start that a seed decides.

        Args:
            shape: of one input.
            seed: of the repetition.
            examples: validation examples, for coefficients of examples.
            slots: examples of a validation batch, for coefficients of slots.
            stage1_weights: of `Validator`.
            initial_stage1_weight: of `Validator`.

        Raises:
            ConfigurationError: there is no such encoder, or it takes no such inputs.
            DataError: the file of weights does not fit it.
        """
        encoder = self.encoder.encoder(shape, seed=seed)
        if self.encoder_weights is not None:
            with blaming("lfm.encoder_weights"):
                load_encoder_weights(encoder, self.encoder_weights)
        return Validator(
            encoder.requires_grad_(not self.frozen_encoder),
            coefficients=examples if self.keyed_by == "example" else slots,
            keyed_by=self.keyed_by,
            temperature=self.temperature,
            normalize=self.normalize,
            initial_coefficient=self.initial_coefficient,
            offset=self.offset,
            unit_mean=self.unit_mean,
            stage1_weights=stage1_weights,
            initial_stage1_weight=initial_stage1_weight,
        )
