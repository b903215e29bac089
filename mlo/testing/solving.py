"""The lower problems of a program solved to a stationarity residual, for reference answers."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from mlo.condition import Condition
from mlo.errors import StationarityError
from mlo.hypergradients import ConjugateGradient
from mlo.moves import Move
from mlo.sweep import Sweep
from mlo.testing.standing import Standing
from mlo.types import Tensors
from mlo.vectors import dense, flat, norm, unflat


@dataclasses.dataclass(frozen=True)
class Solver:
    """Newton's method on the total gradient of one problem after the other, lowest last.

    A problem's condition is the gradient of its loss with those below it at their solutions, so
    these are solved again wherever it is tried. LBFGS leads into the region where Newton's method
    converges. Sizes up to `dense` have the matrix written out; larger ones use conjugate gradients.

    Args:
        residual: largest entry of a gradient, over its scale, at which a problem counts as solved.
        steps: Newton steps allowed.
        rounds: turns that problems which read each other may take.
        dense: most parameters for which the matrix is written out.
        scales: problem -> scale of its gradient, found at its first visit.
    """

    residual: float = 1e-10
    steps: int = 50
    rounds: int = 200
    dense: int = 400
    scales: dict[str, float] = dataclasses.field(default_factory=dict)

    def solve(self, standing: Standing, name: str) -> None:
        """Solve all problems that answer to `name`, in live parameters.

        Raises:
            StationarityError: one of them could not be solved.
        """
        for group in standing.graph.groups(name):
            if len(group) == 1:
                self._minimize(standing, group[0])
            else:
                self._take_turns(standing, group)

    def _take_turns(self, standing: Standing, group: tuple[str, ...]) -> None:
        """Problems that read each other, one after the other until all are at rest."""
        sizes: dict[str, float] = {}
        for _ in range(self.rounds):
            for name in group:
                self._minimize(standing, name)
            sizes = {name: self._gradient(standing, name)[1] for name in group}
            if all(size <= self.residual * self._scale(standing, n) for n, size in sizes.items()):
                return
        raise self._unsolved(*max(sizes.items(), key=lambda item: item[1]))

    def _minimize(self, standing: Standing, name: str) -> None:
        gradient, size = self._gradient(standing, name)
        small = self.residual * self._scale(standing, name)
        if size <= small:
            return
        self._approach(standing, name)
        gradient, size = self._gradient(standing, name)
        for _ in range(self.steps):  # one at least: LBFGS leaves flat directions unsolved
            gradient, size, moved = self._newton(standing, name, gradient, size)
            if not moved or size <= small:
                break
        if size <= small:
            return
        raise self._unsolved(name, size)

    def _scale(self, standing: Standing, name: str) -> float:
        """What a gradient is of the order of where parameters are off by their own size, or 1."""
        if name not in self.scales:
            sweep = self._sweep(standing, name)
            with torch.no_grad():
                condition = sweep.condition(name, Move(standing.settings[name], ()))
                ones = tuple(torch.ones_like(w) for w in condition.params)
                curvature = float(norm(condition.hvp(ones)) / norm(ones))
                size = max([1.0, *(float(w.abs().max()) for w in condition.params if w.numel())])
            good = math.isfinite(curvature) and curvature > 0
            self.scales[name] = curvature * size if good else 1.0
        return self.scales[name]

    def _unsolved(self, name: str, size: float) -> StationarityError:
        return StationarityError(
            f"problem '{name}': could not be solved to a relative gradient of {self.residual:.0e}; "
            f"the largest entry is {size:.1e} after at most {self.steps} Newton steps. Check "
            "against 'moves', regularize its loss, bring it nearer to its solution first, or raise "
            "residual=",
            problem=name,
        )

    def _approach(self, standing: Standing, name: str) -> None:
        """LBFGS from where the problem stands; taken back where it does not help."""
        before, (_, size) = standing.at(name), self._gradient(standing, name)
        point = [t.clone().requires_grad_() for t in before]
        optimizer = torch.optim.LBFGS(
            point, max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def evaluate() -> Tensor:
            standing.write(name, tuple(p.detach() for p in point))
            self.solve(standing, name)
            sweep, setting = self._sweep(standing, name), standing.settings[name]
            found = sweep.gradient(name, setting, replay=True)
            for p, g in zip(point, found.values, strict=True):
                p.grad = torch.zeros_like(p) if g is None else g.detach().clone()
            return found.evaluation.value

        optimizer.step(evaluate)
        standing.write(name, tuple(p.detach() for p in point))
        if not self._gradient(standing, name)[1] < size:
            standing.write(name, before)

    def _newton(
        self, standing: Standing, name: str, gradient: Tensors, size: float
    ) -> tuple[Tensors, float, bool]:
        """One step, halved until the gradient shrinks."""
        sweep = self._sweep(standing, name)
        with torch.no_grad():
            condition = sweep.condition(name, Move(standing.settings[name], ()))
            step = self._direction(condition, gradient)
        stood, length = standing.at(name), 1.0
        while length > 1e-8:
            standing.write(name, tuple(w - length * s for w, s in zip(stood, step, strict=True)))
            tried, reached = self._gradient(standing, name)
            if reached < size:
                return tried, reached, True
            length /= 2
        standing.write(name, stood)
        self.solve(standing, name)
        return gradient, size, False

    def _direction(self, condition: Condition, gradient: Tensors) -> Tensors:
        """J^{-1} g; `hvp` gives rows of the Jacobian J."""
        vector = flat(gradient)
        if vector.numel() > self.dense:
            solver = ConjugateGradient(iterations=500, tolerance=1e-8)
            return solver.solve(condition, gradient).adjoint
        unit = torch.eye(vector.numel(), dtype=vector.dtype, device=vector.device)
        rows = [flat(condition.hvp(unflat(e, gradient))) for e in unit]
        solution = torch.linalg.lstsq(torch.stack(rows), vector[:, None]).solution[:, 0]
        return unflat(solution, gradient)

    def _gradient(self, standing: Standing, name: str) -> tuple[Tensors, float]:
        """The total gradient where a problem stands, those below solved; its largest entry."""
        self.solve(standing, name)
        sweep, setting = self._sweep(standing, name), standing.settings[name]
        values = sweep.values[name]
        found = dense(sweep.gradient(name, setting, replay=True).values)
        gradient = tuple(
            torch.zeros_like(w) if g is None else g for g, w in zip(found, values, strict=True)
        )
        size = max(float(g.abs().max()) for g in gradient if g.numel())
        return gradient, math.inf if math.isnan(size) else size

    @staticmethod
    def _sweep(standing: Standing, name: str) -> Sweep:
        values = {n: standing.at(n) for n in standing.graph.names}
        moves = {n: Move(s, ()) for n, s in standing.settings.items()}
        return Sweep(standing.program, values, moves, {})
