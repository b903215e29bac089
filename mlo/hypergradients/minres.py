"""`Minres`: the linear system solved by minimal residuals, for a Hessian that is not definite."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.hypergradients.krylov import Krylov, idle, lost_in_rounding, ratio
from mlo.hypergradients.preconditioners import Apply
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.solve import LinearSolution
from mlo.types import Tensors
from mlo.vectors import add_scaled, dot, norm, times, zeros_like

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("minres")
@dataclasses.dataclass(frozen=True)
class Minres(Krylov):
    r"""Minimal residuals on ``(H + damping I) u = v``, for a symmetric H of any signs.

    Every iterate has the smallest residual of its Krylov space, in the norm of M^{-1}; so the
    residual does not grow, also at a saddle, where conjugate gradients have to stop.

    Cost: one product an iteration and one at the end, about 2 gradient evaluations each, after one
    for the shared graph; what a preconditioner takes, and one for a warm start. Memory: 10 vectors
    of the parameters' size, 11 with a preconditioner, one more that a warm start remembers. Bias:
    after 2 n iterations the residual is at most 2 ((k - 1) / (k + 1))^n of the first, k the
    condition number of M^{-1} (H + damping I); where that is definite, after n iterations
    with sqrt(k) in the place of k. Exact after as many iterations as it has distinct eigenvalues,
    up to rounding. M must be positive definite, whatever H is. It stops by the Euclidean norm of
    the residual, whatever M is.

    A singular H + damping I is no obstacle where v is in its range: begun from zero it finds the
    solution of minimum length, in the norm of M. Where v is not, there is no answer: the rest ends
    in the null space. The outcome is `singular`, a failure, as soon as a step along a w with
    ``|(H + damping I) w| <= 10 eps |H + damping I| |w|`` comes up. That step is not made; the
    residual of the iterate before is that of least squares, its part in the null space means
    nothing. With fewer iterations the outcome is `limit`.

    Sources: Paige and Saunders, "Solution of sparse indefinite systems of linear equations", SIAM
    Journal on Numerical Analysis 12, 1975; with M: Elman, Silvester and Wathen, "Finite elements
    and fast iterative solvers", 2nd edition, algorithm 4.1; the singular case: Choi, Paige and
    Saunders, SISC 33, 2011.

    Args: those of `Krylov`.
    """

    def iterate(
        self, condition: Condition, rest: Tensors, *, apply: Apply, target: Tensor
    ) -> LinearSolution:
        """Iterate; every update is masked by whether the iteration is still active."""
        # Zeros that stay NaN where the right-hand side is: it must not look like an answer.
        x, r = times(rest, (0.0,) * len(rest)), rest
        active = norm(rest) > target
        basis, turned = _Lanczos(rest, apply), _Rotations(target)
        phi, largest = basis.beta, torch.zeros_like(target)
        w_old = w = p_old = p = zeros_like(rest)  # p = A w, with the norm 1 in that of M^{-1}
        lost, products = torch.zeros_like(active), torch.zeros_like(active, dtype=torch.int64)
        for _ in range(self.iterations):
            if idle(active):
                break
            products, v = products + active, basis.v
            product = add_scaled(condition.hvp(v), self.damping, v)
            length = norm(v)
            largest = torch.maximum(largest, ratio(norm(product), length, length > 0))
            epsilon, delta, gamma = turned.advance(*basis.advance(product))
            w_old, w = w, add_scaled(add_scaled(v, -epsilon, w_old), -delta, w)
            p_old, p = p, add_scaled(add_scaled(product, -epsilon, p_old), -delta, p)
            null = active & (norm(p) <= lost_in_rounding(rest) * largest * norm(w))
            lost, active = lost | null, active & ~null
            gamma = torch.where(active, gamma, 0.0)
            w, p = _over(w, gamma), _over(p, gamma)
            x, r = add_scaled(x, turned.cos * phi, w), add_scaled(r, -turned.cos * phi, p)
            phi = -turned.sin * phi
            active = active & (norm(r) > target)
        code = code_where(lost, Outcome.SINGULAR, 0)
        return LinearSolution(x, Info(products=products, code=code))


class _Lanczos:
    """The vectors q_k and v_k = M^{-1} q_k with ``A V_k = Q_{k+1} T_k`` and ``Q^T V = I``.

    Attributes:
        q: the last q_k.
        v: the last v_k.
        beta: how long q_k was before it was normalized, in the norm of M^{-1}.
    """

    def __init__(self, rest: Tensors, apply: Apply) -> None:
        self._apply = apply
        self.q, self._coupling = zeros_like(rest), torch.zeros_like(norm(rest))
        self._take(rest)

    def advance(self, product: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        """Append ``A v_k``; returns the column of T: above, on and below its diagonal."""
        above = self._coupling
        product = add_scaled(product, -above, self._old)
        on = dot(self.v, product)
        self._take(add_scaled(product, -on, self.q))
        self._coupling = self.beta
        return above, on, self.beta

    def _take(self, vector: Tensors) -> None:
        scaled = self._apply(vector)
        self.beta = dot(vector, scaled).clamp(min=0.0).sqrt()
        self._old, self.q = self.q, _over(vector, self.beta)
        self.v = _over(scaled, self.beta)


class _Rotations:
    """Givens rotations that make T triangular, a column at a time.

    Attributes:
        cos: of the last rotation.
        sin: of the last rotation.
    """

    def __init__(self, like: Tensor) -> None:
        self.cos = self._cos_old = torch.ones_like(like)
        self.sin = self._sin_old = torch.zeros_like(like)

    def advance(self, above: Tensor, on: Tensor, below: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the next column of T; returns it: two above the diagonal, one above it, on it."""
        epsilon, bent = self._sin_old * above, self._cos_old * above
        delta, bar = self.cos * bent + self.sin * on, self.cos * on - self.sin * bent
        gamma = torch.hypot(bar, below)
        self._cos_old, self._sin_old = self.cos, self.sin
        self.cos, self.sin = ratio(bar, gamma, gamma > 0), ratio(below, gamma, gamma > 0)
        return epsilon, delta, gamma


def _over(vector: Tensors, length: Tensor) -> Tensors:
    """``vector / length``, or 0 where that is 0."""
    scale = ratio(torch.ones_like(length), length, length > 0)
    return tuple(x * scale.to(x.dtype) for x in vector)
