"""Search spaces as data: the edges of each part of a network, and their candidate operations.

A search network mixes the candidates of an edge by one weight for each, so the mixing weights of a
part are a matrix [E, O]: row e is edge e, column k its k-th candidate, and O the largest number of
candidates. A column that an edge has no candidate for means nothing to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor

from mlo.errors import ConfigurationError
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.operations import check_operation

T = TypeVar("T")

Mixing = Mapping[str, Tensor]
"""Mixing weights [E, O] of each part."""


@dataclasses.dataclass(frozen=True)
class Edge:
    """A place for one operation.

    Attributes:
        source: the number of the state that the operation is applied to.
        target: the number of the state that its result is a part of.
        operations: names of the candidates.
    """

    source: int
    target: int
    operations: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The candidates that a genotype can choose: all but "none"."""
        return tuple(name for name in self.operations if name != "none")


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """What all search spaces have in common.

    Attributes:
        parts: the edges of each part, in the order of the rows of its mixing weights.

    Raises:
        ConfigurationError: An edge has no operations, one twice, or one that does not exist, or
            the edges are not those of such a space.
    """

    parts: Mapping[str, tuple[Edge, ...]]

    def __post_init__(self) -> None:
        parts = {part: tuple(edges) for part, edges in self.parts.items()}
        object.__setattr__(self, "parts", parts)
        for part, edges in parts.items():
            for edge in edges:
                _check_edge(part, edge)

    def shape(self, part: str) -> tuple[int, int]:
        """Return [E, O]: how many edges a part has, and how many candidates the one with most."""
        edges = self.parts[part]
        return len(edges), max(len(edge.operations) for edge in edges)

    def check_mixing(self, mixing: Mixing) -> None:
        """Refuse mixing weights of another shape, by a ConfigurationError; values are not read."""
        for part in self.parts:
            if part not in mixing:
                raise ConfigurationError(
                    f"mixing weights: expected those of part '{part}', found {[*mixing]}. Give "
                    "one matrix for each part of the space."
                )
            if tuple(mixing[part].shape) != self.shape(part):
                raise ConfigurationError(
                    f"mixing weights of part '{part}': expected shape {self.shape(part)}, edges "
                    f"by operations, found {tuple(mixing[part].shape)}. Give those of this space."
                )

    def rows(self, mixing: Mixing) -> dict[str, list[list[float]]]:
        """Return the weights of each part as numbers, for a genotype to be derived from.

        Raises:
            ConfigurationError: A shape is not that of the space, or a weight is not a number.
        """
        self.check_mixing(mixing)
        rows = {part: mixing[part].detach().tolist() for part in self.parts}
        for part, edges in self.parts.items():
            for number, (edge, row) in enumerate(zip(edges, rows[part], strict=True)):
                for name, weight in zip(edge.operations, row, strict=False):
                    if math.isnan(weight):
                        raise ConfigurationError(
                            f"mixing weights of part '{part}': expected numbers, found NaN for "
                            f"'{name}' of edge {number}. Nothing can be derived; look where the "
                            "search diverged."
                        )
        return rows

    def genotype(self, mixing: Mixing) -> Genotype | MacroGenotype:
        """Derive the discrete network that the mixing weights stand for."""
        raise NotImplementedError

    def random_genotype(self, generator: Generator | None = None) -> Genotype | MacroGenotype:
        """Draw one of the genotypes of the space, each with the same probability."""
        raise NotImplementedError


def draw(items: Sequence[T], generator: Generator | None) -> T:
    """Draw one of some things, each with the same probability."""
    device = "cpu" if generator is None else generator.device
    return items[int(torch.randint(len(items), (), generator=generator, device=device))]


def _check_edge(part: str, edge: Edge) -> None:
    where = f"part '{part}', edge from {edge.source} to {edge.target}"
    if not edge.operations:
        raise ConfigurationError(
            f"{where}: expected at least one operation, found none. Leave it a candidate, or "
            "leave the edge out."
        )
    for name in edge.operations:
        check_operation(name, where)
    if len(set(edge.operations)) < len(edge.operations):
        raise ConfigurationError(
            f"{where}: expected each operation once, found {edge.operations}. Name it once."
        )
