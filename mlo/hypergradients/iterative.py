"""What all methods share that improve an adjoint step by step: preconditioner and warm start."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.hypergradients.base import State
from mlo.hypergradients.implicit import Implicit
from mlo.hypergradients.preconditioners import (
    Apply,
    Preconditioner,
    Preconditioning,
    find_preconditioner,
    identity,
)
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, detached, dot, finite, norm, where, zeros_like

if TYPE_CHECKING:
    from mlo.condition import Condition


class Iterative(Implicit):
    r"""An implicit method that corrects a first guess of the adjoint until its rest is small.

        r = v - (H + damping I) u_0,    u = u_0 + (a correction with (H + damping I) . ~ r)

    A subclass is a frozen dataclass with the fields `preconditioner` and `warm_start`, and writes
    `iterate`.

    With `warm_start` the guess is a multiple of the adjoint that was found last, u_0 = t u_last
    with the t for which the rest is smallest (in the norm of M^{-1}), so never a worse one than
    zero. It costs one product. The tolerance stays relative to v, so a first guess that is good
    saves iterations where the method stops at a tolerance, and error where it does not. What is
    answered then depends on the call before, within the tolerance. The last adjoint is the
    method's state: solves that are differentiated again (nested levels) neither use nor change it.
    Where several problems above ask in turn, each finds the adjoint of the other.
    """

    preconditioner: str | Preconditioner | None = None
    warm_start: bool = False

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the preconditioner needs."""
        chosen = find_preconditioner(self.preconditioner)
        return frozenset() if chosen is None else chosen.needs

    @abc.abstractmethod
    def iterate(
        self, condition: Condition, rest: Tensors, *, apply: Apply, target: Tensor
    ) -> LinearSolution:
        """Return a correction u with ``(H + damping I) u ~ rest``, made of `condition.hvp`.

        Args:
            condition: the condition.
            rest: the right-hand side; the correction begins at zero.
            apply: v -> M^{-1} v.
            target: the Euclidean norm of what may be left of `rest`, 0-dim.

        Returns:
            The correction. Its `Info.products` counts the products that were taken here.
        """

    def prepare(self, condition: Condition) -> Preconditioning:
        """M^{-1} at a new point."""
        chosen = find_preconditioner(self.preconditioner)
        if chosen is None:
            return Preconditioning(identity)
        return chosen.prepare(condition, self.damping)

    def overhead(self, size: int) -> int:
        """Products beside those of `iterate`, at most: M^{-1}, the first rest and the last one."""
        chosen = find_preconditioner(self.preconditioner)
        return (0 if chosen is None else chosen.work(size)) + self.warm_start + 1

    def solve(self, condition: Condition, cotangent: Tensors) -> LinearSolution:
        """Iterate from zero."""
        return self._corrected(condition, cotangent, None)

    def solve_with_state(
        self, condition: Condition, cotangent: Tensors, state: State
    ) -> tuple[LinearSolution, State]:
        """Iterate from the adjoint that was found last, and remember the new one."""
        if not self.warm_start:
            return super().solve_with_state(condition, cotangent, state)
        solution = self._corrected(condition, cotangent, state)
        adjoint = detached(solution.adjoint)
        before = zeros_like(adjoint) if state is None else state
        return solution, where(finite(adjoint), adjoint, before)

    def energy(self, condition: Condition, rest: Tensors) -> Tensor:
        """``r^T M^{-1} r``."""
        return dot(rest, self._prepared(condition)[0].apply(rest))

    def _corrected(self, condition: Condition, v: Tensors, last: Tensors | None) -> LinearSolution:
        """Correct a first guess. The product that measures the last rest is counted here."""
        ready, made = self._prepared(condition)
        target = self.tolerance * norm(v)
        if last is None:
            found = self.iterate(condition, v, apply=ready.apply, target=target)
            adjoint = found.adjoint
        else:
            guess, rest = self._guessed(condition, v, last, ready.apply)
            found = self.iterate(condition, rest, apply=ready.apply, target=target)
            adjoint, made = add_scaled(guess, 1.0, found.adjoint), made + 1
        info = dataclasses.replace(found.info, products=found.info.products + made + 1)
        return LinearSolution(adjoint, info)

    def _guessed(
        self, condition: Condition, v: Tensors, last: Tensors, apply: Apply
    ) -> tuple[Tensors, Tensors]:
        """The best multiple of `last` and its rest; zero and v where it is no better than zero."""
        product = add_scaled(condition.hvp(last), self.damping, last)
        scaled = apply(product)
        size, share = dot(product, scaled), dot(v, scaled)
        multiple = share / torch.where(size > 0, size, torch.ones_like(size))
        rest = add_scaled(v, -multiple, product)
        better = (size > 0) & (dot(rest, apply(rest)) < dot(v, apply(v)))
        guess = add_scaled(zeros_like(last), multiple, last)
        return where(better, guess, zeros_like(last)), where(better, rest, v)

    def _prepared(self, condition: Condition) -> tuple[Preconditioning, int]:
        """M^{-1} at this point, and the products that it took just now: it serves all solves."""
        memory = condition.memory
        if memory.factors is not None:
            return memory.factors, 0
        memory.factors = self.prepare(condition)
        return memory.factors, memory.factors.products
