"""Answers found without the library.

Three ways: central differences of the re-solved program, the implicit function theorem on the
stacked system of all lower problems with every matrix written out, and plain autograd through
Newton steps that are taken with a graph. None of them knows scopes, contexts or responses.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import mlo

Params = dict[str, Tensor]
Values = dict[str, Params]


@dataclasses.dataclass(frozen=True)
class Level:
    """One problem, as data: the loss takes mappings of tensors, so it serves both sides."""

    name: str
    loss: Callable[..., Tensor]
    start: Params
    constant: tuple[str, ...] = ()
    explicit: tuple[str, ...] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return self.explicit or tuple(inspect.signature(self.loss).parameters)

    def at(self, values: Mapping[str, Params]) -> Tensor:
        given = []
        for read in self.reads:
            cut = read in self.constant
            given.append({k: t.detach() if cut else t for k, t in values[read].items()})
        return self.loss(*given)


def starts(levels: Sequence[Level]) -> Values:
    return {level.name: dict(level.start) for level in levels}


def engine_of(
    levels: Sequence[Level],
    values: Values,
    method: mlo.Hypergradient | Mapping[str, mlo.Hypergradient],
    *,
    rate: float = 0.1,
    **settings: object,
) -> mlo.Engine:
    """The same program in the library, standing at `values`."""
    problems = [
        mlo.Problem(
            level.name,
            params=values[level.name],
            loss=level.loss,
            reads=level.explicit,
            constant=level.constant,
            optimizer=lambda params: torch.optim.SGD(params, rate),
            hypergradient=method.get(level.name) if isinstance(method, Mapping) else method,
        )
        for level in levels
    ]
    return mlo.Engine(problems, **settings)


def flat(params: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([params[key].reshape(-1) for key in params])


def unflat(vector: Tensor, like: Params) -> Params:
    parts = vector.split([t.numel() for t in like.values()])
    return {k: p.reshape(t.shape) for p, (k, t) in zip(parts, like.items(), strict=True)}


def gradient(output: Tensor, wrt: Tensor, *, graph: bool = True) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(wrt)
    (found,) = torch.autograd.grad(
        output, wrt, create_graph=graph, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(wrt) if found is None else found


def jacobian(outputs: Tensor, wrt: Tensor, *, graph: bool = False) -> Tensor:
    return torch.stack([gradient(output, wrt, graph=graph) for output in outputs])


def root(residual: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-12) -> Tensor:
    """Newton's method with halved steps, to a residual below `tolerance` in every entry."""
    point = start.detach().clone().requires_grad_()
    for _ in range(100):
        value = residual(point)
        if value.detach().abs().max() <= tolerance:
            return point.detach()
        move = torch.linalg.solve(jacobian(value, point), value.detach())
        length = 1.0
        while length > 1e-6:
            trial = (point.detach() - length * move).requires_grad_()
            if residual(trial).detach().norm() < value.detach().norm():
                break
            length /= 2
        point = trial
    raise AssertionError(f"no root: residual {value.detach().abs().max():.1e}")


def argmin(objective: Callable[[Tensor], Tensor], start: Tensor, steps: int = 2) -> Tensor:
    """The minimizer, attached by Newton steps with a graph to all that `objective` depends on.

    From the solution, one such step has the exact first derivative of the minimizer, and two have
    the exact derivatives up to the third, because the error is squared with every step.
    """
    point = root(lambda w: gradient(objective(w), w), start).requires_grad_()
    for _ in range(steps):
        slope = gradient(objective(point), point)
        point = point - torch.linalg.solve(jacobian(slope, point, graph=True), slope)
    return point


def stacked(levels: Sequence[Level], values: Values, names: Sequence[str]) -> Callable[..., Tensor]:
    """G(w) of the named levels: every gradient partial, all other levels where they stand."""
    chosen = [level for level in levels if level.name in names]
    sizes = [flat(values[level.name]).numel() for level in chosen]

    def place(w: Tensor) -> Values:
        parts = dict(zip((level.name for level in chosen), w.split(sizes), strict=True))
        return {n: unflat(parts[n], p) if n in parts else p for n, p in values.items()}

    def residual(w: Tensor, **others: Params) -> Tensor:
        given = {**place(w), **others}
        slopes = []
        for level in chosen:
            own = flat(given[level.name])
            here = {**given, level.name: unflat(own, values[level.name])}
            slopes.append(gradient(level.at(here), own))
        return torch.cat(slopes)

    return residual


def below(levels: Sequence[Level], name: str) -> list[str]:
    names = [level.name for level in levels]
    return names[: names.index(name)]


def solved(levels: Sequence[Level], values: Values, names: Sequence[str]) -> Values:
    """The values with the named levels at their solutions (all gradients partial)."""
    start = torch.cat([flat(values[level.name]) for level in levels if level.name in names])
    w = root(stacked(levels, values, names), start)
    found, at = dict(values), 0
    for level in levels:
        if level.name in names:
            size = flat(values[level.name]).numel()
            found[level.name] = unflat(w[at : at + size], values[level.name])
            at += size
    return found


def stacked_answer(levels: Sequence[Level], values: Values, name: str) -> Params:
    """The total gradient by one dense solve with the system of all levels below `name`."""
    lower = [level for level in levels if level.name in below(levels, name)]
    w = torch.cat([flat(values[level.name]) for level in lower]).requires_grad_()
    x = flat(values[name]).requires_grad_()
    upper = unflat(x, values[name])
    conditions = stacked(levels, values, [level.name for level in lower])(w, **{name: upper})
    at, given = 0, {**values, name: upper}
    for level in lower:
        size = flat(values[level.name]).numel()
        given[level.name] = unflat(w[at : at + size], values[level.name])
        at += size
    loss = next(level for level in levels if level.name == name).at(given)
    adjoint = torch.linalg.solve(jacobian(conditions, w).T, gradient(loss, w, graph=False))
    answer = gradient(loss, x, graph=False) - jacobian(conditions, x).T @ adjoint
    return unflat(answer.detach(), values[name])


def resolved_answer(levels: Sequence[Level], values: Values, name: str) -> Params:
    """The total gradient by central differences of the program solved anew at each point."""
    loss = next(level for level in levels if level.name == name)

    def reduced(x: Tensor) -> Tensor:
        at = {**values, name: unflat(x, values[name])}
        return loss.at(solved(levels, at, below(levels, name))).detach()

    return unflat(central(reduced, flat(values[name])), values[name])


def central(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 2e-3) -> Tensor:
    """Fourth-order central differences.

    For functions and derivatives of order one the truncation is step^4 / 30 = 5e-13 and the
    rounding 1e-15 / step = 5e-13, so 1e-9 can be asked of them.
    """
    slopes = []
    for unit in torch.eye(x.numel()):
        near = function(x + step * unit) - function(x - step * unit)
        far = function(x + 2 * step * unit) - function(x - 2 * step * unit)
        slopes.append((8 * near - far) / (12 * step))
    return torch.stack(slopes).detach()


def relative(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The distance of all entries over the length of `expected`."""
    assert list(actual) == list(expected)
    assert all(actual[k].shape == expected[k].shape for k in expected)
    length = float(flat(expected).norm())
    assert length > 1e-3, "an expected value near zero tests nothing"
    return float((flat(actual) - flat(expected)).norm()) / length
