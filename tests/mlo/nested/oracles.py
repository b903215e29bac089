"""Answers for nested programs, found without the library.

`Stacked` is the implicit function theorem on the system of all total gradients, every matrix
written out; it knows who responds to whom from plain reachability of reads. `settled` solves every
level with the levels below it solved, by Newton steps with a graph, and knows nothing of responses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..oracles import (
    Level,
    Params,
    Values,
    argmin,
    central,
    flat,
    gradient,
    root,
    unflat,
)


def live_reads(levels: Sequence[Level]) -> dict[str, set[str]]:
    """Problem -> the other problems that it reads and has not cut off."""
    return {
        level.name: {r for r in level.reads if r != level.name and r not in level.constant}
        for level in levels
    }


def responders(levels: Sequence[Level], name: str) -> list[str]:
    """The problems below `name` that are moved by it and that move it, lowest first."""
    reads = live_reads(levels)
    names = [level.name for level in levels]
    below = names[: names.index(name)]
    moved, used = {name}, {name}
    for _ in below:
        moved |= {n for n in below if reads[n] & moved}
        used |= {n for reader in used for n in reads[reader] if n in below}
    return [n for n in below if n in moved and n in used]


def surroundings(levels: Sequence[Level], name: str) -> list[str]:
    """What `name` and those that respond to it read besides themselves."""
    reads = live_reads(levels)
    inside = {name, *responders(levels, name)}
    outside = set().union(*(reads[n] for n in inside)) - inside
    return [level.name for level in levels if level.name in outside]


def nesting(levels: Sequence[Level], name: str) -> int:
    """How many levels of responses lie below `name`: 0 for a staged problem, 1 above it."""
    return max((1 + nesting(levels, n) for n in responders(levels, name)), default=0)


class Point:
    """All losses at one point, every problem's numbers a leaf of its own."""

    def __init__(self, levels: Sequence[Level], values: Values) -> None:
        self.levels = list(levels)
        self.by_name = {level.name: level for level in levels}
        self.like = values
        numbers = {n: flat(own) for n, own in values.items()}
        self.leaf = {n: w if w.requires_grad else w.requires_grad_() for n, w in numbers.items()}

    def loss(self, name: str) -> Tensor:
        return self.by_name[name].at({n: unflat(w, self.like[n]) for n, w in self.leaf.items()})


class Stacked(Point):
    """Total gradients with a graph, by one dense solve for each problem that others respond to.

    With S the problems that respond to k, W their numbers and G_S their total gradients,

        dW/dw_k = -(dG_S/dW)^{-1} dG_S/dw_k,    G_k = df_k/dw_k + (dW/dw_k)^T df_k/dW.
    """

    def __init__(self, levels: Sequence[Level], values: Values) -> None:
        super().__init__(levels, values)
        self._found: dict[str, Tensor] = {}

    def total(self, name: str) -> Tensor:
        if name not in self._found:
            self._found[name] = self._total(name)
        return self._found[name]

    def _total(self, name: str) -> Tensor:
        own, loss, scope = self.leaf[name], self.loss(name), responders(self.levels, name)
        direct = gradient(loss, own)
        if not scope:
            return direct
        columns, cross = self.slopes(scope, [scope, [name]])
        pull = torch.cat([gradient(loss, self.leaf[n]) for n in scope])
        return direct - cross.T @ torch.linalg.solve(columns.T, pull)

    def slopes(
        self, names: Sequence[str], groups: Sequence[Sequence[str]], *, graph: bool = True
    ) -> list[Tensor]:
        """The derivatives of the total gradients of `names`, a matrix for each group of leaves."""
        leaves = [self.leaf[n] for group in groups for n in group]
        rows = [
            torch.autograd.grad(
                row,
                leaves,
                create_graph=graph,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for name in names
            for row in self.total(name)
        ]
        matrix = torch.stack([torch.cat(row) for row in rows])
        return list(matrix.split([sum(self.leaf[n].numel() for n in g) for g in groups], dim=1))

    def curvature(self, name: str) -> Tensor:
        """The Hessian of `name` where the problems below respond: what its solve is made with."""
        scope = responders(self.levels, name)
        if not scope:
            return self.slopes([name], [[name]], graph=False)[0]
        own, cross = self.slopes([name], [[name], scope], graph=False)
        columns, moved = self.slopes(scope, [scope, [name]], graph=False)
        return own - cross @ torch.linalg.solve(columns, moved)


def total_gradient(levels: Sequence[Level], values: Values, name: str) -> Params:
    return unflat(Stacked(levels, values).total(name).detach(), values[name])


def balanced(levels: Sequence[Level], values: Values, name: str) -> Values:
    """The values with every total gradient zero of the problems that respond to `name`."""
    scope = responders(levels, name)
    sizes = [flat(values[n]).numel() for n in scope]

    def place(w: Tensor) -> Values:
        parts = zip(scope, w.split(sizes), strict=True)
        return {**values, **{n: unflat(part, values[n]) for n, part in parts}}

    def residual(w: Tensor) -> Tensor:
        at = Stacked(levels, place(w))
        return torch.cat([at.total(n) for n in scope])

    return place(root(residual, torch.cat([flat(values[n]) for n in scope])))


def settled(levels: Sequence[Level], values: Values, count: int) -> Values:
    """The lowest `count` levels solved, each with those below it solved, with a graph to the rest.

    Newton's method starts from `values`.
    """
    if count == 0:
        return dict(values)
    level = levels[count - 1]
    like = {k: t.detach() for k, t in values[level.name].items()}

    def reduced(w: Tensor) -> Tensor:
        return level.at(settled(levels, {**values, level.name: unflat(w, like)}, count - 1))

    solution = argmin(reduced, flat(like))
    return settled(levels, {**values, level.name: unflat(solution, like)}, count - 1)


def settled_slope(levels: Sequence[Level], values: Values, direction: Tensor) -> Tensor:
    """The slope of the highest loss along `direction`, by central differences.

    The program is solved anew at each point.
    """
    second, top = levels[-2:]
    like = values[second.name]

    def reduced(length: Tensor) -> Tensor:
        x = flat(values[top.name]) + length * direction
        given = {**values, top.name: unflat(x, values[top.name])}

        def below(w: Tensor) -> Values:
            return settled(levels, {**given, second.name: unflat(w, like)}, len(levels) - 2)

        # Newton steps with a graph are for those below: this level's own need not be attached.
        w = root(lambda w: gradient(second.at(below(w)), w), flat(like))
        return top.at(below(w)).detach()

    return central(reduced, torch.zeros(1))[0]
