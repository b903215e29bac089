r"""The bilevel quadratic problem, solved with matrices.

    min_x h(x) = f(z*(x), x),        z*(x) = argmin_z g(z, x)

with f and g quadratic (`samples`). With H, C, c of g the solution is an affine map,

    z*(x) = -H^{-1} (C^T x + c),        J = dz*/dx = -H^{-1} C^T,

so h is quadratic too, with gradient f_x + J^T f_z at z*(x).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mlo.errors import ConfigurationError
from problems.benchmarks.bilevel_quadratic.samples import Mean, Samples, draw_samples

DRAWS = 20
"""How often a problem is drawn, at most, until h has a minimum."""


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Sizes and spectra; names and defaults are those of benchopt's simulated quadratics.

    Attributes:
        mu_inner: smallest eigenvalue of the Hessians; with the default `L_inner_inner` of 1 the
            condition number of the inner problem is 1 / mu_inner.
        L_inner_inner: largest eigenvalue of g's Hessian in z.
        L_inner_outer: the same in x.
        L_outer_inner: of f's Hessian in z.
        L_outer_outer: of f's Hessian in x.
        L_cross_inner: largest singular value of g's mixed derivatives.
        L_cross_outer: of f's.
        n_samples_inner: samples of g.
        n_samples_outer: samples of f.
        dim_inner: size of z.
        dim_outer: size of x.
    """

    mu_inner: float = 0.1
    L_inner_inner: float = 1.0
    L_inner_outer: float = 1.0
    L_outer_inner: float = 1.0
    L_outer_outer: float = 1.0
    L_cross_inner: float = 0.1
    L_cross_outer: float = 0.1
    n_samples_inner: int = 1024
    n_samples_outer: int = 1024
    dim_inner: int = 100
    dim_outer: int = 100

    def __post_init__(self) -> None:
        least = max(self.dim_inner, self.dim_outer)
        for name in ("n_samples_inner", "n_samples_outer"):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"Spectra({name}=...): expected at least {least} samples, one for each "
                    f"dimension, found {getattr(self, name)}; draw more samples"
                )


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """One problem that was drawn.

    Attributes:
        inner: the samples of g.
        outer: the samples of f.
        g: the whole of g.
        f: the whole of f.
        jacobian: J = dz*/dx.
        offset: z*(0).
        start: z and x to start from.
    """

    inner: Samples
    outer: Samples
    g: Mean
    f: Mean
    jacobian: Tensor
    offset: Tensor
    start: tuple[Tensor, Tensor]

    def solution(self, x: Tensor) -> Tensor:
        """z*(x)."""
        return self.jacobian @ x + self.offset

    def value_function(self, x: Tensor) -> Tensor:
        """h(x)."""
        return self.f.value(self.solution(x), x)

    def hypergradient(self, x: Tensor) -> Tensor:
        """dh/dx."""
        z = self.solution(x)
        return self.f.slope_x(z, x) + self.jacobian.T @ self.f.slope_z(z, x)

    def hessian(self) -> Tensor:
        """d2h/dx2 = K + C J + (C J)^T + J^T H J, the matrices those of f."""
        J, across = self.jacobian, self.f.C @ self.jacobian
        return self.f.K + across + across.T + J.T @ self.f.H @ J

    def minimum(self) -> Tensor:
        """The lowest value of h.

        Raises:
            ConfigurationError: h has none.
        """
        hessian = self.hessian()
        if float(torch.linalg.eigvalsh(hessian)[0]) <= 0:
            raise ConfigurationError(
                "minimum(): expected a value function that is strictly convex, found one that is "
                "not; draw the problem with convex=True, or with a larger mu_inner"
            )
        origin = torch.zeros(len(hessian), dtype=hessian.dtype)
        return self.value_function(-torch.linalg.solve(hessian, self.hypergradient(origin)))

    def metrics(self, z: Tensor, x: Tensor) -> dict[str, float]:
        """The metrics of benchopt's benchmark.

        Returns:
            `value`: ``|grad h(x)|^2``; `value_func`: h(x); `inner_distance`: ``|z - z*(x)|^2``.
        """
        return {
            "value": float(self.hypergradient(x).square().sum()),
            "value_func": float(self.value_function(x)),
            "inner_distance": float((z - self.solution(x)).square().sum()),
        }


def draw(spectra: Spectra, seed: int, *, convex: bool = False) -> Quadratic:
    """Draw a problem and a start, in double precision.

    Args:
        spectra: sizes and spectra.
        seed: of all random numbers.
        convex: draw again until h is strictly convex, at most `DRAWS` times. At a condition of
            1000 it hardly ever is.

    Raises:
        ConfigurationError: it never was.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(DRAWS):
        drawn = _draw(spectra, generator)
        if not convex or float(torch.linalg.eigvalsh(drawn.hessian())[0]) >= 1e-12:
            return drawn
    raise ConfigurationError(
        f"draw(seed={seed}, convex=True): expected a value function that is strictly convex, found "
        f"none in {DRAWS} draws; use a larger mu_inner or a smaller L_cross_inner"
    )


def _draw(s: Spectra, generator: torch.Generator) -> Quadratic:
    sizes = (s.dim_inner, s.dim_outer)
    inner = draw_samples(
        generator,
        s.n_samples_inner,
        sizes,
        lowest=s.mu_inner,
        tops=(s.L_inner_inner, s.L_inner_outer, s.L_cross_inner),
    )
    outer = draw_samples(
        generator,
        s.n_samples_outer,
        sizes,
        lowest=s.mu_inner,
        tops=(s.L_outer_inner, s.L_outer_outer, s.L_cross_outer),
    )
    z, x = (torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes)
    g = inner.mean()
    affine = -torch.linalg.solve(g.H, torch.cat([g.C.T, g.c[:, None]], 1))
    return Quadratic(inner, outer, g, outer.mean(), affine[:, :-1], affine[:, -1], (z, x))
