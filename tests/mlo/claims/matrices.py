"""Programs as numpy matrices: all second derivatives at a point, and what follows by hand.

Autograd differentiates the losses, one Hessian of all that a loss reads at a time; the rest is
dense linear algebra, with nothing of the library in it. All in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch

Array = np.ndarray
Pull = Callable[[str, Array], dict[str, Array]]
"""pull(problem, v): the cotangents that a problem's answer to v adds, of all that it reads."""


@dataclasses.dataclass(frozen=True)
class Derivatives:
    """Of one loss: problem -> gradient, and (problem, problem) -> second derivatives."""

    slope: dict[str, Array]
    curvature: dict[tuple[str, str], Array]


def derivatives(level, values: Mapping[str, Mapping[str, torch.Tensor]]) -> Derivatives:
    """Of the loss of `level` with respect to all that it reads."""
    cut, joined = _cuts(level, values)
    function = _of_vector(level, values)
    slope, hessian = _two(function, joined)
    return Derivatives({a: slope[i] for a, i in cut.items()}, _blocks(hessian, cut))


def bend(level, values, own: str, direction: Array) -> dict[tuple[str, str], Array]:
    """Second derivatives of ``<direction, df/d own>``: third ones of the loss, contracted."""
    cut, joined = _cuts(level, values)
    function = _of_vector(level, values)
    along = torch.zeros_like(joined)
    along[cut[own]] = torch.from_numpy(np.asarray(direction))

    def contracted(vector):
        return torch.autograd.grad(function(vector), vector, create_graph=True)[0] @ along

    return _blocks(_two(contracted, joined)[1], cut)


def at_solution(form) -> dict[str, Mapping[str, torch.Tensor]]:
    """Where everybody is solved."""
    return {level.name: level.solution for level in form.levels}


def flat(named: Mapping[str, torch.Tensor]) -> Array:
    return torch.cat([t.detach().double().reshape(-1) for t in named.values()]).numpy()


def unflat(vector: Array, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = torch.as_tensor(vector).split([t.numel() for t in like.values()])
    return {k: p.reshape(t.shape) for (k, t), p in zip(like.items(), parts, strict=True)}


def answered(form, values, pull: Pull) -> tuple[Array, Array, dict[str, Array]]:
    """The upper problem's gradient if every lower one answers by `pull`, in a staged program.

    Returns:
        The total gradient, its direct part, and the cotangent that reached every problem.
    """
    top = form.levels[-1]
    bars = dict(derivatives(top, values).slope)
    direct = bars[top.name]
    seen = {}
    for level in reversed(form.levels[:-1]):
        seen[level.name] = bars.get(level.name, np.zeros(len(flat(level.start))))
        for name, more in pull(level.name, seen[level.name]).items():
            bars[name] = bars.get(name, 0.0) + more
    return bars[top.name], direct, seen


def _two(function, at: torch.Tensor) -> tuple[Array, Array]:
    """Gradient and Hessian of a function of one vector."""
    point = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(point), point, create_graph=True)
    rows = [torch.zeros_like(at) for _ in at]
    if slope.requires_grad:
        rows = [
            torch.autograd.grad(s, point, retain_graph=True, materialize_grads=True)[0]
            for s in slope
        ]
    return slope.detach().numpy(), torch.stack(rows).numpy()


def _blocks(matrix: Array, cut: dict[str, slice]) -> dict[tuple[str, str], Array]:
    return {(a, b): matrix[i, j] for a, i in cut.items() for b, j in cut.items()}


def _cuts(level, values) -> tuple[dict[str, slice], torch.Tensor]:
    vectors = {name: torch.from_numpy(flat(values[name])) for name in level.reads}
    cut, end = {}, 0
    for name, vector in vectors.items():
        cut[name] = slice(end, end + len(vector))
        end += len(vector)
    return cut, torch.cat(list(vectors.values()))


def _of_vector(level, values):
    """The loss as a function of all that it reads, in one vector."""
    cut, _ = _cuts(level, values)

    def function(vector):
        read = []
        for name in level.reads:
            parts = vector[cut[name]].split([t.numel() for t in values[name].values()])
            pairs = zip(values[name].items(), parts, strict=True)
            read.append({k: p.reshape(t.shape) for (k, t), p in pairs})
        return level.loss(*read)

    return function
