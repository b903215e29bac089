"""A search that answers by exact products, and compares differences with them as it goes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import mlo
from mlo.condition import Condition
from mlo.errors import ConfigurationError
from mlo.hypergradients import Result
from mlo.types import PartialTensors, Tensors
from mlo.vectors import filled
from problems.nas.architecture import Architecture
from problems.nas.config import NASConfig
from problems.nas.programs import darts_problems
from problems.nas.scene import Scene, Shares


@dataclasses.dataclass
class Products:
    """What was found in a tick.

    Attributes:
        wanted: whether differences are to be taken.
        exact: the exact product, as one vector over the architecture's parameters.
        differences: radius -> what stands in its place.
    """

    wanted: bool = False
    exact: Tensor | None = None
    differences: dict[float, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compared(mlo.Hypergradient):
    """`OneStep`, which keeps its answer and, where they are wanted, those of `FiniteDifference`.

    All answer the same cotangent of the same move: the same point, batch, random state and mode.
    The product is kept by itself, since what is left when the direct gradient is subtracted from
    the sum has lost the digits by which it is the smaller of the two.

    Cost: that of `OneStep`, and 2 gradient evaluations a radius where differences are wanted.

    Args:
        radii: of the differences.
        found: is written to.
    """

    radii: tuple[float, ...]
    found: Products

    needs: ClassVar[frozenset[str]] = mlo.OneStep.needs | {"shared", "staged"}

    def vjp(self, condition: Condition, cotangent: Tensors, state: Any) -> Result:
        """The exact answer; the others are only kept."""
        result = mlo.OneStep().vjp(condition, cotangent, None)
        if self.found.wanted:
            self.found.exact = _vector(result.grads, condition.context)
            for radius in self.radii:
                other = mlo.FiniteDifference(radius=radius).vjp(condition, cotangent, None)
                self.found.differences[radius] = _vector(other.grads, condition.context)
        return result


class Search(NamedTuple):
    """A search by DARTS that compares.

    Attributes:
        scene: what it is made of.
        engine: the program.
        network: the search network.
        architecture: what is searched for.
        found: what its method finds.
    """

    scene: Scene
    engine: mlo.Engine
    network: nn.Module
    architecture: Architecture
    found: Products

    def accuracy(self) -> float:
        """Share of right predictions on the share of the data that architectures are judged on."""
        return self.scene.accuracy(self.network, self.scene.shares.valid, self.architecture())


def make_search(
    config: NASConfig, seed: int, radii: Sequence[float], *, double: bool = False
) -> Search:
    """The search of the program "darts" of the recipe `nas`, with the method `Compared`.

    Args:
        config: of the recipe; its `hypergradient` is not looked at.
        seed: of the repetition.
        radii: of the differences.
        double: search in float64, from the same start on the same batches.

    Raises:
        ConfigurationError: the architecture's gradient is bounded, so that its optimizer is
            handed another one than the sum of the two parts.
        MloError: (one of its kinds) data or space do not fit the configuration.
    """
    bound = config.search.architecture.clip_norm
    if bound is not None:
        raise ConfigurationError(
            f"search.architecture.clip_norm: expected none, found {bound}; leave the "
            "architecture's gradient as it is"
        )
    scene, found = Scene(config, seed), Products()
    network, architecture = scene.supernet(), scene.architecture()
    if double:
        network.double()
        architecture.double()
        scene.shares = Shares(*((x.double(), labels) for x, labels in scene.shares))
    problems = darts_problems(
        network,
        architecture,
        ticks=config.search.ticks,
        training=config.search.training,
        upper=config.search.architecture,
        hypergradient=Compared(tuple(radii), found),
    )
    engine = scene.config.engine(problems, scene.searched())
    return Search(scene, engine, network, architecture, found)


def follow(search: Search, every: int) -> list[dict[str, Any]]:
    """Make the search, and compare in every n-th tick, the first one included.

    Returns:
        A reading for each of these ticks: "tick", and what `reading` says.
    """
    readings: list[dict[str, Any]] = []
    found = search.found
    for tick in range(search.scene.config.search.ticks):
        found.wanted, found.exact = tick % every == 0, None
        with _handed(search) as totals:
            search.engine.step()
        if found.exact is not None:
            read = reading(totals[-1] - found.exact, found.exact, found.differences)
            readings.append({"tick": tick, **read})
    return readings


def reading(direct: Tensor, exact: Tensor, differences: Mapping[float, Tensor]) -> dict[str, Any]:
    """Compare differences with the exact product, alone and as parts of the whole gradient.

    Args:
        direct: the direct gradient.
        exact: the exact product, which is added to it.
        differences: radius -> what stands in the place of the exact product.

    Returns:
        Plain values. "direct" and "product" are norms, "first_order" is the cosine of the direct
        gradient and the exact sum. For each radius "cosine", "error" and "norm" compare the
        products (error and norm relative to the exact one), "total_cosine" and "total_error" the
        sums.
    """
    total = direct + exact
    return {
        "direct": direct.norm().item(),
        "product": exact.norm().item(),
        "first_order": cosine(direct, total),
        "radii": {
            f"{radius:g}": {
                "cosine": cosine(found, exact),
                "error": relative_error(found, exact),
                "norm": (found.norm() / exact.norm()).item(),
                "total_cosine": cosine(direct + found, total),
                "total_error": relative_error(direct + found, total),
            }
            for radius, found in differences.items()
        },
    }


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two vectors; NaN where one is zero."""
    a, b = a.double(), b.double()
    return (a @ b / (a.norm() * b.norm())).item()


def relative_error(found: Tensor, exact: Tensor) -> float:
    """``|found - exact| / |exact|``."""
    found, exact = found.double(), exact.double()
    return ((found - exact).norm() / exact.norm()).item()


def _vector(grads: PartialTensors, context: Tensors) -> Tensor:
    return torch.cat([g.detach().flatten() for g in filled(grads, context)])


@contextlib.contextmanager
def _handed(search: Search) -> Iterator[list[Tensor]]:
    """What the architecture's optimizer is handed inside: its whole gradient, as a vector."""
    seen: list[Tensor] = []

    def look(*_: Any) -> None:
        grads = [p.grad for p in search.architecture.parameters()]
        seen.append(_vector(tuple(grads), tuple(search.architecture.parameters())))

    handle = search.engine.problems["architecture"].optimizer.register_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
