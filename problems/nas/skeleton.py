"""What search networks and discrete networks have in common: stems, and where they reduce."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import nn

from mlo.errors import ConfigurationError
from problems.nas.operations import FactorizedReduce, ReLUConvBN, layers_of


def halves(layer: int, layers: int) -> bool:
    """Whether a layer halves the size: those at a third and at two thirds of the depth."""
    return layer in (layers // 3, 2 * layers // 3)


def make_stem(inputs: int, channels: int, dimensions: int) -> nn.Sequential:
    """A convolution over three places a side, and batch normalization with a learned scale."""
    layers = layers_of(dimensions)
    return nn.Sequential(
        layers.convolution(inputs, channels, 3, padding=1, bias=False), layers.norm(channels)
    )


@dataclasses.dataclass(frozen=True)
class CellPlace:
    """Where a cell stands.

    Attributes:
        kind: "normal" or "reduce".
        inputs: channels of the outputs of the cell before the last one, and of the last.
        channels: of each node.
        reduced: whether the first input is twice as large as the second.
    """

    kind: str
    inputs: tuple[int, int]
    channels: int
    reduced: bool

    @property
    def reduce(self) -> bool:
        """Whether the edges from the two inputs have stride 2."""
        return self.kind == "reduce"

    def preprocessing(self, *, affine: bool, dimensions: int) -> tuple[nn.Module, nn.Module]:
        """What brings the two inputs to the size of the second, and to the channels of a node."""
        make_first = FactorizedReduce if self.reduced else ReLUConvBN
        before_last, last = self.inputs
        return (
            make_first(before_last, self.channels, affine=affine, dimensions=dimensions),
            ReLUConvBN(last, self.channels, affine=affine, dimensions=dimensions),
        )


def cell_places(
    layers: int,
    channels: int,
    outputs: Mapping[str, int],
    *,
    before: int,
    reduced: bool = False,
) -> Iterator[CellPlace]:
    """Where the cells of a network stand, the first one first.

    Args:
        layers: number of cells.
        channels: of the nodes of the first cells; a cell that halves the size doubles them.
        outputs: kind -> nodes in the output of such a cell.
        before: channels of both inputs of the first cell.
        reduced: whether the first of these is twice as large as the second.
    """
    inputs = (before, before)
    for layer in range(layers):
        kind = "reduce" if halves(layer, layers) else "normal"
        channels *= 2 if kind == "reduce" else 1
        yield CellPlace(kind, inputs, channels, reduced)
        inputs, reduced = (inputs[1], outputs[kind] * channels), kind == "reduce"


@dataclasses.dataclass(frozen=True)
class ChainPlace:
    """Where a layer of a chain stands.

    Attributes:
        halves: whether its operation has stride 2.
        channels: of its operation.
    """

    halves: bool
    channels: int

    def widen(self, *, affine: bool, dimensions: int) -> nn.Module:
        """What doubles the channels before an operation of stride 2; else nothing."""
        if not self.halves:
            return nn.Identity()
        return ReLUConvBN(self.channels // 2, self.channels, affine=affine, dimensions=dimensions)


def chain_places(layers: int, channels: int) -> Iterator[ChainPlace]:
    """Where the layers of a chain stand, the first one first.

    Args:
        layers: how many.
        channels: of the first ones.
    """
    for layer in range(layers):
        channels *= 2 if halves(layer, layers) else 1
        yield ChainPlace(halves(layer, layers), channels)


def places_of(places: int | None, dimensions: int) -> int:
    """A side of the last feature map of a chain; 2 for images and 5 for sequences if None."""
    return {1: 5, 2: 2}.get(dimensions, 1) if places is None else places


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is no shape of an image or of a sequence, by a ConfigurationError."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ConfigurationError(
            f"shape: expected that of an image (C, H, W) or of a sequence (C, L), found {shape}. "
            "Give the shape of one input."
        )
