"""Search networks: every candidate of every edge, mixed by weights that are an argument.

The mixing weights are no part of a network, so that two networks can share one architecture, and
gradients with respect to the weights of a network and to the architecture stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.sizes import check_classes, check_positive
from problems.nas.mixed import Candidates, Weights, unbound
from problems.nas.operations import layers_of
from problems.nas.skeleton import (
    CellPlace,
    cell_places,
    chain_places,
    check_shape,
    make_stem,
    places_of,
)
from problems.nas.space import CellSpace, Edge, MacroSpace, Mixing, SearchSpace


class SearchCell(nn.Module):
    """A cell: nodes that sum mixed edges; the output is the channels of all nodes.

    Args:
        edges: of this kind of cell.
        nodes: how many nodes.
        place: where it stands.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(
        self, edges: Sequence[Edge], nodes: int, place: CellPlace, dimensions: int
    ) -> None:
        super().__init__()
        self.first, self.second = place.preprocessing(affine=False, dimensions=dimensions)
        self.edges = nn.ModuleList(
            Candidates(
                edge, place.channels, 2 if place.reduce and edge.source < 2 else 1, dimensions
            )
            for edge in edges
        )
        # Of each node, the rows of its edges and the states that they come from.
        self.incoming = [
            [(row, edge.source) for row, edge in enumerate(edges) if edge.target == node]
            for node in range(2, nodes + 2)
        ]

    def forward(self, before_last: Tensor, last: Tensor, mixing: Sequence[Weights]) -> Tensor:
        """Map the outputs of the two cells before to [n, nodes x channels, ...]."""
        states = [self.first(before_last), self.second(last)]
        for incoming in self.incoming:
            total = None
            for row, source in incoming:
                total = self.edges[row](states[source], mixing[row], total)
            states.append(total)
        return torch.cat(states[2:], 1)


class CellSupernet(nn.Module):
    """The search network of DARTS: a stem, cells, the mean over all places, a linear layer.

    The cells at a third and at two thirds of the depth halve the size and double the channels. With
    16 channels and 8 layers on `CellSpace.darts` it has 1,930,618 weights for ten classes and
    1,953,748 for a hundred. Only the stem has batch normalization with a learned scale.

    Args:
        space: the cells.
        classes: number of classes K.
        channels: C of the nodes of the first cells.
        layers: number of cells.
        inputs: channels of the images or sequences.
        stem_multiplier: the stem has so many times C channels.
        dimensions: 2 for images, 1 for sequences.

    Raises:
        ConfigurationError: A number is too small, or there are no layers for the dimensions.
    """

    def __init__(
        self,
        space: CellSpace,
        classes: int,
        *,
        channels: int = 16,
        layers: int = 8,
        inputs: int = 3,
        stem_multiplier: int = 3,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        check_classes(classes)
        check_positive(
            channels=channels, layers=layers, inputs=inputs, stem_multiplier=stem_multiplier
        )
        self.space = space
        width = stem_multiplier * channels
        self.stem = make_stem(inputs, width, dimensions)
        outputs = dict.fromkeys(space.parts, space.nodes)
        places = list(cell_places(layers, channels, outputs, before=width))
        self.kinds = [place.kind for place in places]
        self.cells = nn.ModuleList(
            SearchCell(space.parts[place.kind], space.nodes, place, dimensions) for place in places
        )
        self.pool = layers_of(dimensions).adaptive_pool(1)
        self.linear = nn.Linear(space.nodes * places[-1].channels, classes)

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """Return logits [n, K].

        Args:
            x: inputs [n, C, H, W] or [n, C, L].
            mixing: weights [E, O] of the parts "normal" and "reduce".

        Raises:
            ConfigurationError: The mixing weights are not of the shape of the space.
        """
        self.space.check_mixing(mixing)
        weights = {part: unbound(mixing[part]) for part in self.space.parts}
        before_last = last = self.stem(x)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            before_last, last = last, cell(before_last, last, weights[kind])
        return self.linear(self.pool(last).flatten(1))


class MacroSupernet(nn.Module):
    """A chain of mixed layers: a stem, the layers, a mean over a few places, a linear layer.

    At a third and at two thirds of the depth a `ReLUConvBN` doubles the channels, and the
    operations of the layer have stride 2.

    Args:
        space: the layers.
        classes: number of classes K.
        channels: of the first layers.
        inputs: channels of the images or sequences.
        dimensions: 2 for images, 1 for sequences.
        places: a side of the last feature map; 2 for images and 5 for sequences if None.

    Raises:
        ConfigurationError: As `CellSupernet`.
    """

    def __init__(
        self,
        space: MacroSpace,
        classes: int,
        *,
        channels: int = 16,
        inputs: int = 1,
        dimensions: int = 2,
        places: int | None = None,
    ) -> None:
        super().__init__()
        check_classes(classes)
        places = places_of(places, dimensions)
        check_positive(channels=channels, inputs=inputs, places=places)
        self.space = space
        self.stem = make_stem(inputs, channels, dimensions)
        self.widen = nn.ModuleList()
        self.layers = nn.ModuleList()
        edges = space.parts["layers"]
        for edge, place in zip(edges, chain_places(len(edges), channels), strict=True):
            channels = place.channels
            self.widen.append(place.widen(affine=False, dimensions=dimensions))
            self.layers.append(Candidates(edge, channels, 2 if place.halves else 1, dimensions))
        self.pool = layers_of(dimensions).adaptive_pool(places)
        self.linear = nn.Linear(channels * places**dimensions, classes)

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """Return logits [n, K].

        Args:
            x: inputs [n, C, H, W] or [n, C, L].
            mixing: weights [L, O] of the part "layers".

        Raises:
            ConfigurationError: The mixing weights are not of the shape of the space.
        """
        self.space.check_mixing(mixing)
        x = self.stem(x)
        weights = unbound(mixing["layers"])
        for widen, layer, each in zip(self.widen, self.layers, weights, strict=True):
            x = layer(widen(x), each)
        return self.linear(self.pool(x).flatten(1))


def make_supernet(
    space: SearchSpace,
    classes: int,
    shape: tuple[int, ...],
    *,
    channels: int = 16,
    layers: int | None = None,
) -> CellSupernet | MacroSupernet:
    """Build the search network of a space for inputs of a shape.

    Args:
        space: the search space.
        classes: number of classes K.
        shape: of one input, (C, H, W) or (C, L).
        channels: of the first layers.
        layers: number of cells, 8 if None; a chain has those of its space.

    Returns:
        A module from inputs [n, *shape] and mixing weights to logits [n, K].

    Raises:
        ConfigurationError: The shape is neither, a number is too small, or a chain is to have
            another number of layers than its space.
    """
    check_shape(shape)
    sizes = {"channels": channels, "inputs": shape[0], "dimensions": len(shape) - 1}
    if isinstance(space, CellSpace):
        return CellSupernet(space, classes, layers=8 if layers is None else layers, **sizes)
    if not isinstance(space, MacroSpace):
        raise ConfigurationError(
            f"space: expected a CellSpace or a MacroSpace, found {type(space).__name__}. Build "
            "the search network of another space yourself."
        )
    if layers not in (None, len(space.parts["layers"])):
        raise ConfigurationError(
            f"layers: expected {len(space.parts['layers'])}, as many as the space has, found "
            f"{layers}. Leave it out, or give the space so many."
        )
    return MacroSupernet(space, classes, **sizes)
