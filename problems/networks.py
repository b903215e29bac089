"""Which network is meant: the settings that name a classifier or an encoder and give its size."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import nn

from mlo.configuration import Section
from problems.datasets.task import drawn
from problems.models import make_classifier, make_encoder
from problems.naming import blaming


class Network(Section):
    """A network by its name; sizes are those of the small one."""

    name: str = Field("small", description="kind of network")
    width: int = Field(16, ge=1, description="channels of the first convolution of a small one")
    features: int = Field(64, ge=1, description="length of its feature vectors")
    batch_norm: bool = Field(False, description="normalize its convolutions over the batch")

    def classifier(
        self, classes: int, shape: tuple[int, ...], *, seed: int, part: str = "classifier"
    ) -> nn.Module:
        """A classifier for inputs of a shape, at the start that a seed decides.

        Args:
            classes: number of classes K.
            shape: of one input.
            seed: of the repetition.
            part: the part of it whose random state is drawn on.

        Raises:
            ConfigurationError: there is no such network, or it takes no such inputs.
        """
        with blaming("network.name"), drawn(seed, part):
            return make_classifier(self.name, classes, shape, **self._sizes)

    def encoder(self, shape: tuple[int, ...], *, seed: int) -> nn.Module:
        """An encoder at the start that a seed decides.

        Raises:
            ConfigurationError: there is no such encoder, or it takes no such inputs.
        """
        with blaming("lfm.encoder.name"), drawn(seed, "encoder"):
            return make_encoder(self.name, shape, **self._sizes)

    @property
    def _sizes(self) -> dict[str, Any]:
        if self.name != "small":
            return {}
        return {"width": self.width, "features": self.features, "batch_norm": self.batch_norm}
