"""The quadratic problem declared for the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import mlo
from problems.benchmarks.bilevel_quadratic.problem import Quadratic
from problems.benchmarks.bilevel_quadratic.samples import Mean, Samples
from problems.benchmarks.bilevel_quadratic.work import Work

Point = tuple[Tensor, Tensor]
"""z and x."""

NEVER = 10**9
"""Ticks for which the outer problem waits where only the inner one is to move."""


@dataclasses.dataclass
class Batches:
    """Epochs of batches of row numbers, in a new order each time; it says where it is.

    Attributes:
        count: how many rows there are.
        size: how many a batch has; the last one of an epoch may have fewer.
        generator: of the orders.
    """

    count: int
    size: int
    generator: torch.Generator

    def __post_init__(self) -> None:
        self._state: dict[str, Any] = {"order": self.generator.get_state(), "given": 0}
        self._resumed = False

    def __iter__(self) -> Iterator[Tensor]:
        """One epoch, or what is left of the one that was loaded."""
        if not self._resumed:
            self._state = {"order": self.generator.get_state(), "given": 0}
        self._resumed = False
        order = torch.randperm(self.count, generator=self.generator)
        for rows in order.split(self.size)[self._state["given"] :]:
            self._state["given"] += 1
            yield rows

    def state_dict(self) -> dict[str, Any]:
        """The generator's state before the present epoch, and how many batches it has given."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next epoch be the rest of that one."""
        self._state, self._resumed = dict(state), True
        self.generator.set_state(state["order"])

    def __len__(self) -> int:
        """Batches of an epoch."""
        return (self.count + self.size - 1) // self.size


def build(
    quadratic: Quadratic,
    method: mlo.Hypergradient,
    point: Point,
    *,
    inner_rate: float = 1.0,
    outer_rate: float = 0.0,
    repeat: int = 1,
    warmup: int = 0,
    batch: int | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> mlo.Engine:
    """Declare the problems `inner` (variable z) and `outer` (variable x).

    Args:
        quadratic: the problem.
        method: how `outer` differentiates through `inner`.
        point: where both stand.
        inner_rate: learning rate of the inner problem; the default is one over the largest
            eigenvalue of `Spectra()`.
        outer_rate: learning rate of the outer problem.
        repeat: updates of the inner problem a tick.
        warmup: ticks before the outer problem moves.
        batch: samples a batch; by default both losses are those of all samples.
        seed: of the batches.
        work: counts what is done.
    """
    z, x = point
    data = {} if batch is None else _streams(quadratic, batch, seed)
    inner = mlo.Problem(
        "inner",
        params={"z": z},
        loss=_Loss(quadratic.g, quadratic.inner, work, own="z"),
        reads=("inner", "outer", *(name for name in data if name == "inner_rows")),
        optimizer=lambda params: torch.optim.SGD(params, inner_rate),
        repeat=repeat,
        hypergradient=method,
    )
    outer = mlo.Problem(
        "outer",
        params={"x": x},
        loss=_Loss(quadratic.f, quadratic.outer, work, own="x"),
        reads=("inner", "outer", *(name for name in data if name == "outer_rows")),
        optimizer=lambda params: torch.optim.SGD(params, outer_rate),
        warmup=warmup,
    )
    # Every evaluation is counted, and solves that fail are a result.
    guards = mlo.Guards(on_nonfinite="ignore", probe=False)
    return mlo.Engine([inner, outer], data, dry_run=False, guards=guards)


def present(engine: mlo.Engine) -> Point:
    """Where both problems of an engine stand."""
    z, x = (next(p.module.parameters()).detach() for p in engine.problems.values())
    return z, x


@dataclasses.dataclass(frozen=True)
class _Loss:
    """q(z, x) of all samples, or of some."""

    mean: Mean
    samples: Samples
    work: Work | None
    own: str

    def __call__(
        self, inner: Mapping[str, Tensor], outer: Mapping[str, Tensor], *rows: Tensor
    ) -> Tensor:
        """The loss, watched where its work is to be counted."""
        values = {"z": inner["z"], "x": outer["x"]}
        if self.work is not None:
            values[self.own] = self.work.watched(values[self.own])
        return self.samples.value(**values, rows=rows[0]) if rows else self.mean.value(**values)


def _streams(quadratic: Quadratic, size: int, seed: int) -> dict[str, Batches]:
    counts = {"inner_rows": len(quadratic.inner.a), "outer_rows": len(quadratic.outer.a)}
    return {
        name: Batches(count, size, torch.Generator().manual_seed(seed + k))
        for k, (name, count) in enumerate(counts.items())
    }
