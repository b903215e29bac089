"""The discrete network of a chain of layers."""

from __future__ import annotations

from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.sizes import check_classes, check_positive
from problems.nas.genotype import MacroGenotype
from problems.nas.operations import layers_of, make_operation
from problems.nas.skeleton import chain_places, make_stem, places_of


class MacroNetwork(nn.Module):
    """A stem, the layers of a chain, a mean over a few places, a linear layer.

    It has the skeleton of `MacroSupernet`: at a third and at two thirds of the depth a `ReLUConvBN`
    doubles the channels, and the operation of the layer has stride 2. Normalization has a learned
    scale, and none stands behind pooling.

    Args:
        genotype: the layers.
        classes: number of classes K.
        channels: of the first layers.
        inputs: channels of the images or sequences.
        dimensions: 2 for images, 1 for sequences.
        places: a side of the last feature map; 2 for images and 5 for sequences if None.

    Raises:
        ConfigurationError: The genotype is none of a chain, or a number is too small.
    """

    def __init__(
        self,
        genotype: MacroGenotype,
        classes: int,
        *,
        channels: int = 16,
        inputs: int = 1,
        dimensions: int = 2,
        places: int | None = None,
    ) -> None:
        super().__init__()
        check_classes(classes)
        if not isinstance(genotype, MacroGenotype):
            raise ConfigurationError(
                f"genotype: expected one of a chain, found {type(genotype).__name__}. Give a "
                "MacroGenotype, or build a CifarNetwork of cells."
            )
        places = places_of(places, dimensions)
        check_positive(channels=channels, inputs=inputs, places=places)
        self.stem = make_stem(inputs, channels, dimensions)
        self.widen = nn.ModuleList()
        self.layers = nn.ModuleList()
        chain = chain_places(len(genotype.layers), channels)
        for name, place in zip(genotype.layers, chain, strict=True):
            channels, stride = place.channels, 2 if place.halves else 1
            self.widen.append(place.widen(affine=True, dimensions=dimensions))
            self.layers.append(
                make_operation(name, channels, stride, affine=True, dimensions=dimensions)
            )
        self.pool = layers_of(dimensions).adaptive_pool(places)
        self.linear = nn.Linear(channels * places**dimensions, classes)

    def forward(self, x: Tensor, drop_path: float = 0.0) -> Tensor:
        """Return logits [n, K].

        Args:
            x: inputs [n, C, H, W] or [n, C, L].
            drop_path: 0; it is here since all networks have it.

        Raises:
            ConfigurationError: `drop_path` is not 0.
        """
        refuse_drop_path(drop_path)
        x = self.stem(x)
        for widen, layer in zip(self.widen, self.layers, strict=True):
            x = layer(widen(x))
        return self.linear(self.pool(x).flatten(1))

    def with_auxiliary(self, x: Tensor, drop_path: float = 0.0) -> tuple[Tensor, None]:
        """Return logits [n, K], and None, since there is no auxiliary head."""
        return self(x, drop_path), None


def refuse_drop_path(probability: float) -> None:
    """Refuse to drop layers of a chain, by a ConfigurationError."""
    if probability != 0.0:
        raise ConfigurationError(
            f"drop_path: expected 0 for a chain of layers, found {probability}. A chain has no "
            "other way past a layer that is dropped; set drop_path to 0."
        )
