"""A discrete cell, and the network that is a stack of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.sizes import check_classes
from problems.nas.genotype import Cell, Genotype
from problems.nas.networks.auxiliary import AuxiliaryHead
from problems.nas.networks.drop_path import check_drop_path, drop_path
from problems.nas.operations import layers_of, make_operation
from problems.nas.skeleton import CellPlace, cell_places

FEWEST = 3
"""Cells that a network needs, so that one of them is normal: two halve the size."""


class DiscreteCell(nn.Module):
    """A cell of a genotype: each node is the sum of its two operations.

    Args:
        cell: the choices.
        place: where it stands.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(self, cell: Cell, place: CellPlace, dimensions: int) -> None:
        super().__init__()
        self.first, self.second = place.preprocessing(affine=True, dimensions=dimensions)
        self.concat = cell.concat
        choices = [choice for pair in cell.nodes for choice in pair]
        self.inputs = [choice.input for choice in choices]
        self.operations = nn.ModuleList(
            make_operation(
                choice.operation,
                place.channels,
                2 if place.reduce and choice.input < 2 else 1,
                affine=True,
                dimensions=dimensions,
            )
            for choice in choices
        )

    def forward(self, before_last: Tensor, last: Tensor, probability: float) -> Tensor:
        """Map the outputs of the two cells before to [n, len(concat) x channels, ...].

        Args:
            before_last: output of the cell before the last one.
            last: output of the last cell.
            probability: of dropping an operation, in training mode. An identity is never dropped,
                so that what is left out is a detour and not the way.
        """
        states = [self.first(before_last), self.second(last)]
        for first in range(0, len(self.operations), 2):
            a, b = (self._applied(k, states, probability) for k in (first, first + 1))
            states.append(a + b)
        return torch.cat([states[state] for state in self.concat], 1)

    def _applied(self, k: int, states: Sequence[Tensor], probability: float) -> Tensor:
        operation = self.operations[k]
        y = operation(states[self.inputs[k]])
        if not self.training or isinstance(operation, nn.Identity):
            return y
        return drop_path(y, probability)


class CellNetwork(nn.Module):
    """Cells, the mean over all places and a linear layer; a stem is what subclasses add.

    The cells at a third and at two thirds of the depth halve the size and double the channels.

    Args:
        genotype: the cells.
        classes: number of classes K.
        channels: C of the nodes of the first cells.
        layers: number of cells.
        before: channels of both inputs of the first cell.
        reduced: whether the first of these is twice as large as the second.
        dimensions: 2 for images, 1 for sequences.

    Attributes:
        auxiliary: the head behind the second cell that reduces, or None.

    Raises:
        ConfigurationError: The genotype is none of cells, or a number is too small.
    """

    auxiliary: AuxiliaryHead | None

    def __init__(
        self,
        genotype: Genotype,
        classes: int,
        *,
        channels: int,
        layers: int,
        before: int,
        reduced: bool = False,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        check_classes(classes)
        check_genotype(genotype, layers)
        cells = {"normal": genotype.normal, "reduce": genotype.reduce}
        outputs = {kind: len(cell.concat) for kind, cell in cells.items()}
        places = list(cell_places(layers, channels, outputs, before=before, reduced=reduced))
        self.cells = nn.ModuleList(
            DiscreteCell(cells[place.kind], place, dimensions) for place in places
        )
        self.branch = 2 * layers // 3
        self.branch_channels = outputs["reduce"] * places[self.branch].channels
        self.pool = layers_of(dimensions).adaptive_pool(1)
        self.linear = nn.Linear(outputs[places[-1].kind] * places[-1].channels, classes)
        self.auxiliary = None

    def states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map inputs to the two inputs of the first cell."""
        raise NotImplementedError

    def forward(self, x: Tensor, drop_path: float = 0.0) -> Tensor:
        """Return logits [n, K].

        Args:
            x: inputs [n, C, H, W] or [n, C, L].
            drop_path: probability p in [0, 1) that an example does without an operation, in
                training mode; every operation except an identity.

        Raises:
            ConfigurationError: `drop_path` is no such probability.
        """
        return self._logits(self._outputs(x, drop_path)[0])

    def with_auxiliary(self, x: Tensor, drop_path: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Return logits [n, K], and those of the auxiliary head or None without one.

        Args:
            x: as `forward`.
            drop_path: as `forward`.

        Raises:
            ConfigurationError: As `forward`, or inputs are too small for the auxiliary head.
        """
        last, branch = self._outputs(x, drop_path)
        return self._logits(last), None if self.auxiliary is None else self.auxiliary(branch)

    def _outputs(self, x: Tensor, probability: float) -> tuple[Tensor, Tensor]:
        """The outputs of the last cell, and of the one that the auxiliary head sees."""
        check_drop_path(probability)
        before_last, last = self.states(x)
        branch = last
        for layer, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, probability)
            if layer == self.branch:
                branch = last
        return last, branch

    def _logits(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


def check_genotype(genotype: Genotype, layers: int) -> None:
    """Refuse what is no genotype of cells, or too few cells, by a ConfigurationError."""
    if not isinstance(genotype, Genotype):
        raise ConfigurationError(
            f"genotype: expected one of cells, found {type(genotype).__name__}. Give a Genotype, "
            "or build a MacroNetwork of a chain."
        )
    if layers < FEWEST:
        raise ConfigurationError(
            f"genotype: expected layers to be at least {FEWEST} for its cells, since two of them "
            f"halve the size, found {layers}. Give more layers."
        )
