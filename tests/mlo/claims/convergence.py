"""Errors in the norm that a theory names, as the knob of a method turns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

import mlo

from . import theory
from .claims import RADIUS, RATE, Claim
from .measured import LOST, measured_with
from .systems import adjoint, as_matrix, cotangent, geometric, symmetric
from .theory import Array

EPS = LOST * float(np.finfo(float).eps)


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting of the knob.

    Attributes:
        knob: the setting.
        error: in the theory's norm, relative to that of the answer zero.
        law: what the theory allows.
        rounding: what rounding may add.
    """

    knob: float
    error: float
    law: float
    rounding: float

    @property
    def share(self) -> float:
        """The part of the law that the error takes, where it is no rounding."""
        return self.error / self.law if self.law > 100 * self.rounding else 0.0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A method, its knob, and the law in words; `rounded` where all of its error is rounding."""

    label: str
    knob: str
    law: str
    made: Callable[[int], list[Point]]
    rounded: bool = False

    def points(self, seed: int) -> list[Point]:
        """Measured once."""
        return _measured(self, seed)


@functools.cache
def _measured(sweep: Sweep, seed: int) -> list[Point]:
    return sweep.made(seed)


def matrix_of(seed: int, size: int = 8, condition: float = 30.0) -> tuple[Array, Array, Array]:
    """H, v and u = H^{-1} v."""
    H, v = symmetric(geometric(size, condition), seed), cotangent(size, seed)
    return H, v, np.linalg.solve(H, v)


def conjugate_gradient(seed: int) -> list[Point]:
    H, v, u = matrix_of(seed)
    mu, points = np.linalg.eigvalsh(H), []
    for n in range(1, 9):
        x, _ = adjoint(mlo.ConjugateGradient(iterations=n, tolerance=0.0), H, v)
        error = ((x - u) @ H @ (x - u) / (u @ H @ u)) ** 0.5
        points.append(Point(n, error, theory.chebyshev(mu, n), EPS * theory.spread(mu) ** 2))
    return points


def minres(seed: int, eigenvalues: Sequence[float] | None = None) -> list[Point]:
    H, v, _ = matrix_of(seed)
    if eigenvalues is not None:
        H = symmetric(np.array(eigenvalues), seed)
        v = cotangent(len(H), seed)
    mu, points = np.linalg.eigvalsh(H), []
    for n in range(1, len(H) + 1):
        x, _ = adjoint(mlo.Minres(iterations=n, tolerance=0.0), H, v)
        error = float(np.linalg.norm(v - H @ x) / np.linalg.norm(v))
        points.append(Point(n, error, theory.minres_decay(mu, n), EPS * theory.spread(mu) ** 2))
    return points


SADDLE = (-1.0, -0.7, -0.3, 0.25, 0.5, 0.9, 1.0, 1.2)


def _along(make: Callable[[int], tuple[mlo.Hypergradient, int]], counts, alpha: float, seed: int):
    """The largest error along an eigenvector, over its law there: an equality."""
    H, v, u = matrix_of(seed)
    mu, Q = np.linalg.eigh(H)
    points = []
    for K in counts:
        method, ticks = make(K)
        x, _ = adjoint(method, H, v, ticks=ticks)
        errors = np.abs(Q.T @ (x - u)) / np.abs(Q.T @ u)
        laws = np.abs(1 - alpha * mu) ** K
        at = int(np.argmax(errors / laws))
        points.append(Point(K, float(errors[at]), float(laws[at]), EPS * theory.spread(mu)))
    return points


def neumann(seed: int) -> list[Point]:
    return _along(lambda K: (mlo.Neumann(terms=K), 0), (1, 2, 5, 20, 60), RATE, seed)


def auto(seed: int) -> list[Point]:
    """Alpha as one term tells it, u = alpha v."""
    H, v, _ = matrix_of(seed)
    alpha = power_step(H, v)
    return _along(lambda K: (mlo.Neumann(terms=K, alpha="auto"), 0), (1, 2, 5, 20, 60), alpha, seed)


def power_step(H: Array, v: Array, seed: int = 0) -> float:
    x, _ = adjoint(mlo.Neumann(terms=1, alpha="auto", seed=seed), H, v)
    return float(x @ v / (v @ v))


def unrolled(seed: int) -> list[Point]:
    """At a solution; more ticks than steps, so that it is the steps that count."""
    return _along(lambda K: (mlo.Unrolled(steps=K), K + 2), (1, 2, 5, 10), RATE, seed)


def forward_mode(seed: int) -> list[Point]:
    return _along(lambda K: (mlo.ForwardMode(), K), (1, 2, 5, 10), RATE, seed)


def nystrom(seed: int) -> list[Point]:
    """|u_k - u| against |E| / (d (|E| + d)) |v|, with E = H - H_k read off the map itself."""
    damping, points = 0.01, []
    H = symmetric(np.geomspace(1e-4, 1.0, 10), seed)
    v = cotangent(10, seed)
    u = theory.damped(H, v, damping)
    for rank in (1, 2, 3, 5, 7, 9, 10):
        method = mlo.Nystrom(rank=rank, damping=damping, seed=seed)
        map_ = as_matrix(method, H)
        lost = np.linalg.norm(H - (np.linalg.inv(map_) - damping * np.eye(10)), 2)
        law = theory.nystrom_gap(lost, damping) * np.linalg.norm(v) / np.linalg.norm(u)
        error = np.linalg.norm(map_ @ v - u) / np.linalg.norm(u)
        points.append(Point(rank, float(error), float(law), EPS / damping))
    return points


def dense(seed: int) -> list[Point]:
    """n eps k, at condition numbers k; the right-hand side is that of a solution we choose."""
    points = []
    for condition in (1e1, 1e4, 1e8, 1e12):
        H, u = symmetric(geometric(8, condition), seed), cotangent(8, seed)
        x, _ = adjoint(mlo.Dense(), H, (H.astype(np.longdouble) @ u).astype(float))
        law = 8 * float(np.finfo(float).eps) * condition
        points.append(Point(condition, float(np.linalg.norm(x - u) / np.linalg.norm(u)), law, 0.0))
    return points


def differences(claim_of: Callable[[float], Claim]) -> Callable[[int], list[Point]]:
    """On the lfm-shaped form, whose third derivatives depend on where one stands."""

    def points(seed: int) -> list[Point]:
        found = []
        for radius in (RADIUS * 4, RADIUS * 2, RADIUS, RADIUS / 2):
            row = measured_with(claim_of(radius), "lfm-shaped", seed)
            found.append(Point(radius, row.error, row.allowed, 0.0))
        return found

    return points


def central(radius: float) -> Claim:
    return Claim("", mlo.FiniteDifference(radius=radius), "", reach=1, radius=radius)


def forward(radius: float) -> Claim:
    method = mlo.FiniteDifference(radius=radius, scheme="forward")
    return Claim("", method, "", reach=1, radius=radius, forward=True)


def sama(radius: float) -> Claim:
    return Claim("", mlo.Sama(radius=radius), "", reach=1, radius=radius)


DECAY, SERIES = "2 ((sqrt k - 1) / (sqrt k + 1))^n", "by eigenvector: (1 - {})^{}"

SWEEPS = (
    Sweep("CG", "n", f"H-norm: {DECAY}", conjugate_gradient),
    Sweep("Minres", "n", f"residual: {DECAY}", minres),
    Sweep(
        "Minres, saddle",
        "n",
        "residual: 2 ((k - 1) / (k + 1))^(n / 2)",
        lambda seed: minres(seed, SADDLE),
    ),
    Sweep("Neumann", "terms", SERIES.format("alpha mu", "terms"), neumann),
    Sweep("Neumann, auto", "terms", SERIES.format("mu / L", "terms"), auto),
    Sweep("Unrolled", "steps", SERIES.format("eta mu", "steps"), unrolled),
    Sweep("ForwardMode", "ticks", SERIES.format("eta mu", "ticks"), forward_mode),
    Sweep("Nystrom", "rank", "error: e / (d (e + d)) times v", nystrom),
    Sweep("Dense", "condition", "error: size * eps * condition", dense, rounded=True),
    Sweep("FD, central", "radius", "error: radius^2 / 6, third derivative", differences(central)),
    Sweep("FD, forward", "radius", "error: radius / 2, second derivative", differences(forward)),
    Sweep("Sama", "radius", "error: radius^2 / 6, third derivative", differences(sama)),
)
