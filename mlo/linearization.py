"""A gradient with its graph, and what is kept of it as long as its point lasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from mlo.records import Info
from mlo.types import PartialTensors, Tensors


@dataclasses.dataclass(frozen=True)
class Linearization:
    """A gradient with its graph: g at leaves w and c."""

    params: Tensors
    context: Tensors
    gradient: PartialTensors


@dataclasses.dataclass
class Memory:
    """What the conditions of one problem share as long as their point lasts.

    Below an anticipating problem one hypergradient asks for many solves at one point: a tangent
    and an adjoint one for every product above.

    Attributes:
        graph: the gradient's graph at detached tensors.
        factors: what a solver keeps of its matrix.
        report: told how each solve went that was made while another was differentiated.
    """

    graph: Linearization | None = None
    factors: Any = None
    report: Callable[[Info], None] = dataclasses.field(default_factory=lambda: _unheard)


def _unheard(info: Info) -> None:
    """Nobody asks."""
