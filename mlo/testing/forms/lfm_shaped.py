r"""A program of the shape of Learning From Mistakes: learner, relearner, validator.

With r = E x and s = D w1, all powers and products entry by entry,

    learner    f1(w1, x)     = w1^T A1 w1 / 2 + sum (q + r^2) w1^4 / 4 - w1^T B1 x
    relearner  f2(w2, w1, x) = w2^T A2 w2 / 2 + sum (q + s^2) w2^4 / 4 - w2^T (B2 x + C w1)
    validator  F(x, w1, w2)  = |K2 w2 + K1 w1 - t|^2 / 2 + |x|^2 / 10

Curvature and mixed derivatives depend on where one stands, as with cross-entropy:

    H1 = A1 + 3 diag((q + r^2) w1^2)      dg1/dx = 2 diag(w1^3 r) E - B1
    H2 = A2 + 3 diag((q + s^2) w2^2)      dg2/dx = -B2,    dg2/dw1 = 2 diag(w2^3 s) D - C
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from mlo.testing.forms.drawn import Draw, cast_fields
from mlo.testing.forms.form import (
    PRIOR,
    ClosedForm,
    Level,
    Named,
    condition_number,
    sensitivity,
)
from mlo.testing.forms.newton import newton


def lfm_shaped(
    *,
    size: int = 4,
    quartic: float = 0.2,
    condition: float = 3.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """A staged program with two responses, one through the other, and no quadratic loss below.

    Args:
        size: parameters of the validator; the learner has one more, the relearner two more.
        quartic: q, how far the losses are from quadratic.
        condition: condition number of the quadratic parts.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.
    """
    draw = Draw(seed)
    m, x = _Matrices.drawn(draw, size, quartic, condition), draw.normal(size)
    w1 = newton(lambda w: m.learner(w, x), torch.zeros_like(m.B1[:, 0]))
    w2 = newton(lambda w: m.relearner(w, w1, x), torch.zeros_like(m.B2[:, 0]))
    (_, H1), (_, H2) = m.learner(w1, x), m.relearner(w2, w1, x)
    G1x = 2 * torch.diag(w1**3 * (m.E @ x)) @ m.E - m.B1
    G21 = 2 * torch.diag(w2**3 * (m.D @ w1)) @ m.D - m.C
    rest = m.K2 @ w2 + m.K1 @ w1 - m.t
    v2 = m.K2.T @ rest
    u2 = torch.linalg.solve(H2, v2)
    v1 = m.K1.T @ rest - G21.T @ u2
    u1 = torch.linalg.solve(H1, v1)
    response = -G1x.T @ u1 + m.B2.T @ u2
    J1 = -torch.linalg.solve(H1, G1x)
    J2 = torch.linalg.solve(H2, m.B2 - G21 @ J1)

    def cast(t: Tensor) -> Tensor:
        return t.to(device, dtype)

    at = {"x": cast(x)}
    start1, start2 = (w + 0.3 * draw.normal(len(w)) for w in (w1, w2))
    f1, f2, F = _losses(cast_fields(m, device, dtype))
    levels = (
        Level("learner", f1, ("learner", "validator"), _split(cast(w1)), _split(cast(start1))),
        Level(
            "relearner",
            f2,
            ("relearner", "learner", "validator"),
            {"w": cast(w2)},
            {"w": cast(start2)},
        ),
        Level("validator", F, ("validator", "learner", "relearner"), at, at),
    )
    return ClosedForm(
        name="lfm-shaped",
        upper="validator",
        levels=levels,
        truth={"x": cast(PRIOR * x + response)},
        condition=max(condition_number(H1), condition_number(H2)),
        sensitivity=sensitivity([J1, J2], [v1, v2], response),
    )


@dataclasses.dataclass(frozen=True)
class _Matrices:
    """The constants of the formulas, and gradients and Hessians written out."""

    A1: Tensor
    A2: Tensor
    B1: Tensor
    B2: Tensor
    C: Tensor
    D: Tensor
    E: Tensor
    K1: Tensor
    K2: Tensor
    t: Tensor
    q: Tensor

    @classmethod
    def drawn(cls, draw: Draw, size: int, quartic: float, condition: float) -> _Matrices:
        n1, n2 = size + 1, size + 2
        return cls(
            A1=draw.positive(n1, condition=condition),
            A2=draw.positive(n2, condition=condition),
            B1=draw.pull(n1, size),
            B2=draw.pull(n2, size),
            C=draw.pull(n2, n1),
            D=0.5 * draw.pull(n2, n1),
            E=0.5 * draw.pull(n1, size),
            K1=draw.pull(size, n1),
            K2=draw.pull(size, n2),
            t=draw.normal(size),
            q=torch.tensor(quartic, dtype=torch.float64),
        )

    def learner(self, w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of f1."""
        weight = self.q + (self.E @ x).square()
        slope = self.A1 @ w + weight * w**3 - self.B1 @ x
        return slope, self.A1 + torch.diag(3 * weight * w**2)

    def relearner(self, w: Tensor, w1: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of f2."""
        weight = self.q + (self.D @ w1).square()
        slope = self.A2 @ w + weight * w**3 - self.B2 @ x - self.C @ w1
        return slope, self.A2 + torch.diag(3 * weight * w**2)


def _losses(m: _Matrices) -> tuple[Callable[..., Tensor], ...]:
    def convex(w: Tensor, A: Tensor, factor: Tensor, target: Tensor) -> Tensor:
        quartic = 0.25 * ((m.q + factor.square()) * w**4).sum()
        return 0.5 * w @ A @ w + quartic - w @ target

    def learner(learner: Named, validator: Named) -> Tensor:
        x = validator["x"]
        return convex(_joined(learner), m.A1, m.E @ x, m.B1 @ x)

    def relearner(relearner: Named, learner: Named, validator: Named) -> Tensor:
        w1 = _joined(learner)
        return convex(relearner["w"], m.A2, m.D @ w1, m.B2 @ validator["x"] + m.C @ w1)

    def validator(validator: Named, learner: Named, relearner: Named) -> Tensor:
        rest = m.K2 @ relearner["w"] + m.K1 @ _joined(learner) - m.t
        return 0.5 * rest.square().sum() + 0.5 * PRIOR * validator["x"].square().sum()

    return learner, relearner, validator


def _split(w: Tensor) -> dict[str, Tensor]:
    return {"scalar": w[0], "row": w[1:].reshape(1, -1)}


def _joined(w: Named) -> Tensor:
    return torch.cat([w["scalar"].reshape(1), w["row"].reshape(-1)])
