r"""Three levels, the middle one anticipating, with curvature that depends on where one stands.

All powers and products of vectors entry by entry:

    low     f3(z, y, x) = z^T A z / 2 + q sum z^4 / 4 - z^T (B y + E x)
    middle  f2(y, z, x) = y^T C y / 2 - y^T D x + |K z - s|^2 / 2
    top     F(x, y, z)  = |M y + N z - t|^2 / 2 + |x|^2 / 10

With H = A + 3 q diag(z^2), P = dz/dy = H^{-1} B, R = dz/dx = H^{-1} E, p = H^{-1} K^T (K z - s):

    total gradient of the middle      g(y, x) = C y - D x + B^T p = 0
    its derivatives                   G_y = C + P^T S P,    G_x = P^T S R - D,
                                      S = K^T K - 6 q diag(z p)
    total gradient of the top         F_x + R^T F_z - G_x^T G_y^{-1} (F_y + P^T F_z)

The term with 6 q comes from the third derivative of f3; it is absent from quadratic programs.
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


def trilevel(
    *,
    size: int = 3,
    quartic: float = 0.3,
    condition: float = 3.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ClosedForm:
    """A nested program whose answer needs third derivatives.

    Args:
        size: parameters of the top; the middle has one more, the lowest two more.
        quartic: q, how far the lowest loss is from quadratic.
        condition: condition number of A and of C.
        seed: of what is drawn.
        dtype: of all tensors; the truth is found in float64.
        device: of all tensors.
    """
    draw = Draw(seed)
    m, x = _Matrices.drawn(draw, size, quartic, condition), draw.normal(size)
    y, z = m.solve(x)
    at = m.derivatives(y, z, x)
    rest = m.M @ y + m.N @ z - m.t
    v_y, v_z = m.M.T @ rest + at.P.T @ (m.N.T @ rest), m.N.T @ rest
    response = at.R.T @ v_z - at.G_x.T @ torch.linalg.solve(at.G_y, v_y)
    Y = -torch.linalg.solve(at.G_y, at.G_x)

    def cast(t: Tensor) -> Tensor:
        return t.to(device, dtype)

    top = {"x": cast(x)}
    away_z, away_y = (w + 0.3 * draw.normal(len(w)) for w in (z, y))
    low, middle, upper = _losses(cast_fields(m, device, dtype))
    levels = (
        Level("low", low, ("low", "middle", "top"), {"z": cast(z)}, {"z": cast(away_z)}),
        Level("middle", middle, ("middle", "low", "top"), {"y": cast(y)}, {"y": cast(away_y)}),
        Level("top", upper, ("top", "middle", "low"), top, top),
    )
    return ClosedForm(
        name="quartic, depth 3",
        upper="top",
        levels=levels,
        truth={"x": cast(PRIOR * x + response)},
        nested=True,
        condition=max(condition_number(at.H), condition_number(at.G_y)),
        sensitivity=len(levels) * sensitivity([at.R + at.P @ Y, Y], [v_z, v_y], response),
    )


@dataclasses.dataclass(frozen=True)
class _Derivatives:
    """At one point: the total gradient of the middle, and what it is made of."""

    g: Tensor
    H: Tensor
    P: Tensor
    R: Tensor
    G_y: Tensor
    G_x: Tensor


@dataclasses.dataclass(frozen=True)
class _Matrices:
    """The constants of the formulas."""

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    E: Tensor
    K: Tensor
    M: Tensor
    N: Tensor
    s: Tensor
    t: Tensor
    q: Tensor

    @classmethod
    def drawn(cls, draw: Draw, size: int, quartic: float, condition: float) -> _Matrices:
        n_y, n_z = size + 1, size + 2
        return cls(
            A=draw.positive(n_z, condition=condition),
            B=draw.pull(n_z, n_y),
            C=draw.positive(n_y, condition=condition),
            D=draw.pull(n_y, size),
            E=draw.pull(n_z, size),
            K=draw.pull(size, n_z),
            M=draw.pull(size, n_y),
            N=draw.pull(size, n_z),
            s=draw.normal(size),
            t=draw.normal(size),
            q=torch.tensor(quartic, dtype=torch.float64),
        )

    def derivatives(self, y: Tensor, z: Tensor, x: Tensor) -> _Derivatives:
        """The formulas of the module."""
        H = self.A + 3 * self.q * torch.diag(z**2)
        P, R = torch.linalg.solve(H, self.B), torch.linalg.solve(H, self.E)
        p = torch.linalg.solve(H, self.K.T @ (self.K @ z - self.s))
        S = self.K.T @ self.K - 6 * self.q * torch.diag(z * p)
        g = self.C @ y - self.D @ x + self.B.T @ p
        return _Derivatives(g, H, P, R, self.C + P.T @ S @ P, P.T @ S @ R - self.D)

    def solve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The solution (y, z), by Newton's method inside Newton's method."""

        def low(y: Tensor) -> Tensor:
            target = self.B @ y + self.E @ x
            return newton(
                lambda z: (
                    self.A @ z + self.q * z**3 - target,
                    self.A + 3 * self.q * torch.diag(z**2),
                ),
                torch.zeros_like(target),
            )

        def middle(y: Tensor) -> tuple[Tensor, Tensor]:
            here = self.derivatives(y, low(y), x)
            return here.g, here.G_y

        y = newton(middle, torch.zeros_like(self.C[0]))
        return y, low(y)


def _losses(m: _Matrices) -> tuple[Callable[..., Tensor], ...]:
    def low(low: Named, middle: Named, top: Named) -> Tensor:
        z, target = low["z"], m.B @ middle["y"] + m.E @ top["x"]
        return 0.5 * z @ m.A @ z + 0.25 * m.q * (z**4).sum() - z @ target

    def middle(middle: Named, low: Named, top: Named) -> Tensor:
        y, seen = middle["y"], m.K @ low["z"] - m.s
        return 0.5 * y @ m.C @ y - y @ (m.D @ top["x"]) + 0.5 * seen.square().sum()

    def top(top: Named, middle: Named, low: Named) -> Tensor:
        rest = m.M @ middle["y"] + m.N @ low["z"] - m.t
        return 0.5 * rest.square().sum() + 0.5 * PRIOR * top["x"].square().sum()

    return low, middle, top
