"""What is left of a nested gradient where a middle level drops some of its second derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..oracles import Level, Params, Values, gradient, jacobian, unflat
from .oracles import Point, responders, surroundings


def in_turn(levels: Sequence[Level], names: Sequence[str]) -> list[str]:
    """The named problems, each after those of them that surround it."""
    done: list[str] = []
    while len(done) < len(names):
        done.append(
            next(
                n
                for n in names
                if n not in done
                and all(c in done or c not in names for c in surroundings(levels, n))
            )
        )
    return done


class Shortened(Point):
    """Total gradients through middle levels whose second derivatives leave something out.

    For a problem k with loss f, the problems S that respond to it and outside numbers c, let T hold
    how k and S move with w_k (the identity and P), and U how S moves with c while w_k stands (R).

        projected    H = T^T D^2 f T,          B = T^T (D_c df + D_S df U)
        partial      H = d^2 f / dw_k^2,       B = D_c (df/dw_k) + D_S (df/dw_k) U

    and w_k moves with c by -H^{-1} B. A problem to which nobody responds leaves nothing out.
    """

    def __init__(self, levels: Sequence[Level], values: Values, nested: str) -> None:
        super().__init__(levels, values)
        self.nested = nested
        self._moves: dict[str, dict[str, Tensor]] = {}

    def total(self, name: str) -> Tensor:
        loss, scope = self.loss(name), responders(self.levels, name)
        found = gradient(loss, self.leaf[name], graph=False)
        for n, move in self._with(scope, name).items():
            found = found + move.T @ gradient(loss, self.leaf[n], graph=False)
        return found

    def moves(self, name: str) -> dict[str, Tensor]:
        """Outside problem -> how `name` moves with it."""
        if name not in self._moves:
            self._moves[name] = self._found(name)
        return self._moves[name]

    def _found(self, name: str) -> dict[str, Tensor]:
        scope = responders(self.levels, name)
        loss = self.loss(name)
        rows = {name: torch.eye(self.leaf[name].numel())}
        if self.nested == "projected":
            rows |= self._with(scope, name)

        def second(columns: Mapping[str, Tensor]) -> Tensor:
            return sum(
                row.T @ jacobian(gradient(loss, self.leaf[a]), self.leaf[b]) @ column
                for a, row in rows.items()
                for b, column in columns.items()
            )

        hessian = second(rows)
        found = {}
        for c in surroundings(self.levels, name):
            columns = {c: torch.eye(self.leaf[c].numel()), **self._with(scope, c)}
            found[c] = -torch.linalg.solve(hessian, second(columns))
        return found

    def _with(self, scope: Sequence[str], source: str) -> dict[str, Tensor]:
        """Member of `scope` -> how it moves with `source`, directly and through other members."""
        found: dict[str, Tensor] = {}
        for n in in_turn(self.levels, scope):
            moves = self.moves(n)
            found[n] = torch.zeros(self.leaf[n].numel(), self.leaf[source].numel())
            for m, move in moves.items():
                if m == source:
                    found[n] = found[n] + move
                elif m in found:
                    found[n] = found[n] + move @ found[m]
        return found


def shortened_gradient(levels: Sequence[Level], values: Values, name: str, nested: str) -> Params:
    return unflat(Shortened(levels, values, nested).total(name).detach(), values[name])
