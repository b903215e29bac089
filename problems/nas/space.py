"""The two search spaces: cells as in DARTS, and a chain of layers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Self

from torch import Generator

from mlo.errors import ConfigurationError
from problems.models.sizes import check_positive
from problems.nas.edges import Edge, Mixing, SearchSpace, draw
from problems.nas.genotype import Cell, Choice, Genotype, MacroGenotype

__all__ = [
    "DARTS_OPERATIONS",
    "MACRO_OPERATIONS",
    "CellSpace",
    "Edge",
    "MacroSpace",
    "Mixing",
    "SearchSpace",
]

DARTS_OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The eight candidates of DARTS, in its order."""

MACRO_OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "conv_1x1",
    "conv_3x3",
    "conv_5x5",
    "sep_conv_3x3",
    "dil_conv_3x3",
)
"""The candidates of a layer of a chain. A layer cannot be left out, so "none" is not among them."""


@dataclasses.dataclass(frozen=True)
class CellSpace(SearchSpace):
    """Cells as in DARTS: two inputs, nodes that each sum edges from all states before it.

    Attributes:
        parts: "normal" and "reduce"; states 0 and 1 are the inputs, 2 to nodes + 1 the nodes.
        nodes: how many nodes a cell has; its output is the channels of all of them.
    """

    nodes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(nodes=self.nodes)
        if set(self.parts) != {"normal", "reduce"}:
            raise ConfigurationError(
                f"cell space: expected parts 'normal' and 'reduce', found {[*self.parts]}. Give "
                "the edges of both kinds of cells."
            )
        for part in self.parts:
            self._check_part(part)

    @classmethod
    def darts(cls, nodes: int = 4, operations: Sequence[str] = DARTS_OPERATIONS) -> Self:
        """Return the space with all edges, each with the same candidates, sorted by target."""
        check_positive(nodes=nodes)
        edges = tuple(
            Edge(source, target, tuple(operations))
            for target in range(2, nodes + 2)
            for source in range(target)
        )
        return cls({"normal": edges, "reduce": edges}, nodes)

    def genotype(self, mixing: Mixing) -> Genotype:
        """Derive a genotype by the rule of DARTS (Section 2.4).

        An edge is as strong as its largest weight of an operation other than "none", and has that
        operation. A node keeps its two strongest edges; they are listed by their inputs. Of equal
        weights the first candidate of an edge is taken, and of equal edges the one from the
        earlier state.

        Args:
            mixing: weights [E, O] of each part.

        Raises:
            ConfigurationError: A shape is wrong, a weight is NaN, or fewer than two edges of a
                node have an operation to choose.
        """
        rows = self.rows(mixing)
        return self._with_nodes(
            {
                part: [self._strongest(part, node, rows[part]) for node in range(2, self.nodes + 2)]
                for part in self.parts
            }
        )

    def random_genotype(self, generator: Generator | None = None) -> Genotype:
        """Draw one of the genotypes of the space, each with the same probability.

        For each node, one of all pairs of choices on different inputs is drawn. Where all edges
        have equally many candidates, this is two different inputs and an operation for each.

        Args:
            generator: of the random numbers; that of torch if None.

        Raises:
            ConfigurationError: Fewer than two edges of a node have an operation to choose.
        """
        return self._with_nodes(
            {
                part: [
                    draw(self._pairs(part, node), generator) for node in range(2, self.nodes + 2)
                ]
                for part in self.parts
            }
        )

    def _with_nodes(self, nodes: Mapping[str, list[tuple[Choice, Choice]]]) -> Genotype:
        concat = tuple(range(2, self.nodes + 2))
        normal, reduce = (
            Cell(nodes=tuple(nodes[part]), concat=concat) for part in ("normal", "reduce")
        )
        return Genotype(normal=normal, reduce=reduce)

    def _edges_with_choice(self, part: str, node: int) -> list[tuple[int, Edge]]:
        """The edges of a node that are not "none" alone, with their rows, by their sources."""
        found = [
            (row, edge)
            for row, edge in enumerate(self.parts[part])
            if edge.target == node and edge.choices
        ]
        if len(found) < 2:
            raise ConfigurationError(
                f"cell '{part}', node {node}: expected at least two edges with an operation other "
                f"than 'none', found {len(found)}. A node of a genotype has two inputs; leave its "
                "edges more candidates."
            )
        return sorted(found, key=lambda pair: pair[1].source)

    def _strongest(
        self, part: str, node: int, rows: Sequence[Sequence[float]]
    ) -> tuple[Choice, Choice]:
        best = []
        for row, edge in self._edges_with_choice(part, node):
            weights = dict(zip(edge.operations, rows[row], strict=False))
            operation = max(edge.choices, key=weights.__getitem__)  # the first of equal ones
            best.append((weights[operation], Choice(operation=operation, input=edge.source)))
        best.sort(key=lambda pair: -pair[0])  # stable: equal ones stay sorted by source
        first, second = sorted((choice for _, choice in best[:2]), key=lambda c: c.input)
        return first, second

    def _pairs(self, part: str, node: int) -> list[tuple[Choice, Choice]]:
        """All pairs of choices on different inputs."""
        choices = [
            Choice(operation=name, input=edge.source)
            for _, edge in self._edges_with_choice(part, node)
            for name in edge.choices
        ]
        return [(a, b) for a, b in itertools.combinations(choices, 2) if a.input != b.input]

    def _check_part(self, part: str) -> None:
        ends = [(edge.source, edge.target) for edge in self.parts[part]]
        for number, (source, target) in enumerate(ends):
            if not (0 <= source < target and 2 <= target < self.nodes + 2):
                raise ConfigurationError(
                    f"edge {number} of cell '{part}': expected it to lead to a node from 2 to "
                    f"{self.nodes + 1} from an earlier state, found {source} to {target}. "
                    "Correct its ends."
                )
            if (source, target) in ends[:number]:
                raise ConfigurationError(
                    f"edge {number} of cell '{part}': expected one edge between two states, found "
                    f"a second one from {source} to {target}. Put its operations into the first."
                )
        for node in range(2, self.nodes + 2):
            if node not in {target for _, target in ends}:
                raise ConfigurationError(
                    f"cell '{part}', node {node}: expected edges that lead to it, found none. "
                    "Give it edges, or the cell fewer nodes."
                )


@dataclasses.dataclass(frozen=True)
class MacroSpace(SearchSpace):
    """A chain: part "layers", of which edge l leads from state l to state l + 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.parts) != {"layers"} or not self.parts["layers"]:
            raise ConfigurationError(
                f"macro space: expected one part 'layers' of at least one edge, found "
                f"{ ({part: len(edges) for part, edges in self.parts.items()}) }. Give the layers."
            )
        for layer, edge in enumerate(self.parts["layers"]):
            if (edge.source, edge.target) != (layer, layer + 1):
                raise ConfigurationError(
                    f"layer {layer}: expected an edge from {layer} to {layer + 1}, found "
                    f"{edge.source} to {edge.target}. The layers of a chain follow each other."
                )
            if "none" in edge.operations:
                raise ConfigurationError(
                    f"layer {layer}: expected operations other than 'none', found "
                    f"{edge.operations}. It would cut the chain; leave it out."
                )

    @classmethod
    def chain(cls, layers: int = 6, operations: Sequence[str] = MACRO_OPERATIONS) -> Self:
        """Return a chain of layers that all have the same candidates."""
        check_positive(layers=layers)
        edges = (Edge(layer, layer + 1, tuple(operations)) for layer in range(layers))
        return cls({"layers": tuple(edges)})

    def genotype(self, mixing: Mixing) -> MacroGenotype:
        """Take the operation with the largest weight of each layer, the first of equal ones.

        Args:
            mixing: weights [L, O] of part "layers".

        Raises:
            ConfigurationError: The shape is wrong, or a weight is NaN.
        """
        layers = []
        for edge, row in zip(self.parts["layers"], self.rows(mixing)["layers"], strict=True):
            weights = dict(zip(edge.operations, row, strict=False))
            layers.append(max(edge.operations, key=weights.__getitem__))
        return MacroGenotype(layers=tuple(layers))

    def random_genotype(self, generator: Generator | None = None) -> MacroGenotype:
        """Draw the operation of each layer, all candidates with the same probability.

        Args:
            generator: of the random numbers; that of torch if None.
        """
        edges = self.parts["layers"]
        return MacroGenotype(layers=tuple(draw(edge.operations, generator) for edge in edges))
