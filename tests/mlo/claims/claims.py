"""The one table of claims: what every method promises, by which theory, and where.

A method of the first kind solves: it puts S v in the place of u = H^{-1} v. Its theory says how far
off that is, in a norm of its own, N = |H|^power:

    |N (S v - u)| <= decay(mu) |N u|        mu: the eigenvalues of H

It stops early at a residual of `stop`; rounding adds `amplified(mu)` units of |u|. A method of the
second kind differentiates recorded moves: its answer is that of the derivative of these moves, to
rounding, or to the bias of a difference. What that is worth against u, `test_convergence.py` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

import mlo
from mlo.testing import (
    ClosedForm,
    chain,
    diamond,
    lfm_shaped,
    logistic,
    quadratic,
    ridge,
    trilevel,
)

from . import theory
from .theory import Array

RATE = 0.3
"""Learning rate of the lower problems: below 2 over the largest curvature of all forms."""

TICKS = 6
"""Ticks before a recorded method is asked."""

TERMS, DAMPING, REACH, RADIUS, STOP = 20, 1e-3, 4, 0.01, 1e-12

FORMS: dict[str, Callable[..., ClosedForm]] = {
    "quadratic": quadratic,
    "quadratic, condition 1e4": lambda **at: quadratic(condition=1e4, **at),
    "ridge": ridge,
    "ridge, per coordinate": lambda **at: ridge(per_coordinate=True, **at),
    "logistic": logistic,
    "lfm-shaped": lfm_shaped,
    "chain of 3": chain,
    "row of 2 diamonds": diamond,
    "quadratic, depth 3": lambda **at: quadratic(3, **at),
    "quartic, depth 3": trilevel,
}
"""Every closed form of the library."""

NESTED = ("quadratic, depth 3", "quartic, depth 3")
SEEDS = (11, 12, 13)
"""Draws that nothing was tuned to; the library's own are 0."""


Solve = Callable[[Array, Array], Array]
"""H, v -> S v."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one setting of one method promises.

    Attributes:
        label: what it is called in tables.
        method: the method with its settings.
        textbook: H, v -> S v by a formula of another make; `None` where the setting leaves it open.
        perhaps: the textbooks of what it leaves open, one of which, or one between, is right.
        decay: eigenvalues -> the relative error that the theory allows; `None`: it does not solve.
        power: of the norm: 1/2 for the H-norm of the error, 1 for the residual. What commutes with
            H decays alike in all of them.
        stop: residual, over |v|, at which it stops.
        amplified: eigenvalues -> how many units of rounding a solve may lose.
        reach: recorded updates that it differentiates; `None` for those that solve.
        radius: of a difference, where it takes one.
        forward: whether that is a forward difference.
        nested: whether it serves below anticipating problems with these settings.
        linear: whether its answer is linear in the cotangent.
        half: whether it claims bfloat16.
        words: its theory, for the page.
    """

    label: str
    method: mlo.Hypergradient
    words: str
    textbook: Solve | None = None
    perhaps: tuple[Solve, ...] = ()
    decay: Callable[[Array], float] | None = None
    power: float = 0.5
    stop: float = 0.0
    amplified: Callable[[Array], float] = theory.spread
    reach: int | None = None
    radius: float | None = None
    forward: bool = False
    nested: bool = True
    linear: bool = True
    half: bool = True

    @property
    def solves(self) -> bool:
        return self.decay is not None

    def problems(self) -> list[str]:
        """The forms that it claims."""
        return [name for name in FORMS if self.nested or name not in NESTED]


def _krylov(kind: type, iterations: int, words: str, solver, decay, *, power: float) -> Claim:
    """Conjugate gradients and minimal residuals: exact when done, linear in v only then."""
    done = iterations >= 10
    name = "CG" if kind is mlo.ConjugateGradient else kind.__name__
    return Claim(
        name if done else f"{name}, n = {iterations}",
        kind(iterations=iterations, tolerance=STOP),
        words,
        textbook=lambda H, v: solver(H, v, iterations),
        decay=lambda mu: decay(mu, iterations),
        power=power,
        stop=STOP,
        nested=done,
        linear=done,
    )


def _auto_decay(mu: Array) -> float:
    """With 1 / alpha up to as far above the largest eigenvalue as the power method promises."""
    slack = theory.power_slack(len(mu), iterations=10)
    return theory.series_decay(mu, TERMS, 1.0 / (abs(mu).max() * slack))


def _series_below(share: float) -> Solve:
    """The series with 1 / alpha so far up the slack of the power method."""

    def solve(H: Array, v: Array) -> Array:
        slack = theory.power_slack(len(v), iterations=10) ** share
        return theory.neumann(H, v, TERMS, 1.0 / (np.linalg.norm(H, 2) * slack))

    return solve


def _recorded(label: str, method: mlo.Hypergradient, words: str, **settings) -> Claim:
    return Claim(label, method, words, nested=False, **settings)


_CG = "H-norm of the error, 2 ((sqrt k - 1) / (sqrt k + 1))^n (Hestenes and Stiefel, 1952)"
_MINRES = "residual, 2 ((sqrt k - 1) / (sqrt k + 1))^n (Paige and Saunders, 1975)"
_SERIES = "error by eigenvector, (1 - alpha mu)^terms (Lorraine et al., AISTATS 2020)"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "dense": (
        Claim(
            "Dense",
            mlo.Dense(),
            "rounding times the condition number",
            textbook=theory.exact,
            decay=lambda mu: 0.0,
        ),
    ),
    "conjugate-gradient": tuple(
        _krylov(
            mlo.ConjugateGradient, n, _CG, theory.conjugate_gradient, theory.chebyshev, power=0.5
        )
        for n in (20, 3)
    ),
    "minres": tuple(
        _krylov(mlo.Minres, n, _MINRES, theory.minimal_residual, theory.minres_decay, power=1.0)
        for n in (20, 3)
    ),
    "neumann": (
        Claim(
            "Neumann",
            mlo.Neumann(terms=TERMS),
            _SERIES,
            textbook=lambda H, v: theory.neumann(H, v, TERMS, RATE),
            decay=lambda mu: theory.series_decay(mu, TERMS, RATE),
            amplified=lambda mu: min(TERMS, 1.0 / (RATE * mu.min())) * RATE * mu.max() + 1.0,
        ),
        Claim(
            "Neumann, auto",
            mlo.Neumann(terms=TERMS, alpha="auto"),
            "the same with 1 / alpha above the spectrum by a bounded slack (Dixon, 1983)",
            perhaps=tuple(_series_below(share) for share in np.linspace(0.0, 1.0, 9)),
            decay=_auto_decay,
        ),
    ),
    "nystrom": (
        Claim(
            "Nystrom",
            mlo.Nystrom(rank=20, damping=DAMPING),
            "error by eigenvector, damping / (mu + damping) (Frangella et al., SIMAX 2023)",
            textbook=lambda H, v: theory.damped(H, v, DAMPING),
            decay=lambda mu: DAMPING / float(abs(mu + DAMPING).min()),
            # Of the vectors outside the basis only rounding is left, divided by the damping.
            amplified=lambda mu: float(abs(mu).max()) / DAMPING,
        ),
    ),
    "one-step": (
        _recorded(
            "OneStep",
            mlo.OneStep(),
            "exact derivative of the move (Luketina et al., ICML 2016)",
            reach=1,
        ),
    ),
    "finite-difference": (
        _recorded(
            "FD, central",
            mlo.FiniteDifference(radius=RADIUS),
            "the same, to radius^2 / 6 of a third derivative (Liu et al., ICLR 2019)",
            reach=1,
            radius=RADIUS,
        ),
        _recorded(
            "FD, forward",
            mlo.FiniteDifference(radius=RADIUS, scheme="forward"),
            "the same, to radius / 2 of a second derivative",
            reach=1,
            radius=RADIUS,
            forward=True,
            half=False,
        ),
    ),
    "sama": (
        _recorded(
            "Sama",
            mlo.Sama(radius=RADIUS),
            "with SGD a central difference (Choe et al., NeurIPS 2023)",
            reach=1,
            radius=RADIUS,
        ),
    ),
    "unrolled": (
        _recorded(
            f"Unrolled, {REACH}",
            mlo.Unrolled(steps=REACH),
            "exact derivative of the last updates (Franceschi et al., ICML 2017)",
            reach=REACH,
        ),
    ),
    "forward-mode": (
        _recorded(
            "ForwardMode",
            mlo.ForwardMode(),
            "exact derivative of all updates (Franceschi et al., ICML 2017)",
            reach=TICKS,
        ),
    ),
    "direct": (
        Claim(
            "Direct",
            mlo.Direct(),
            "the direct part alone (Liu et al., ICLR 2019)",
            textbook=lambda H, v: 0.0 * v,
        ),
    ),
}
"""Name in `mlo.methods()` -> what its settings promise."""

ALL = {claim.label: claim for claims in CLAIMS.values() for claim in claims}
