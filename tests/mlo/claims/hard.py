"""Hessians that are indefinite or singular, and narrow numbers: what every method makes of them."""

from __future__ import annotations

import dataclasses
import functools

import mlo
from mlo.records import Outcome
from mlo.testing import saddle

from .claims import ALL, DAMPING, SEEDS
from .matrices import flat
from .programs import Answer, answer, norm

INDEFINITE, SINGULAR = (1.0, 0.6, -0.4), (1.0, 0.6, 0.0)

RIGHT_AT_SADDLES = {"Dense", "Minres", "Minres, n = 3", "Nystrom"}
"""These solve with an indefinite Hessian (n = 3 is all that three unknowns need)."""

AT_SADDLES = {
    "CG": Outcome.NEGATIVE_CURVATURE,
    "CG, n = 3": Outcome.NEGATIVE_CURVATURE,
    "Neumann": Outcome.DIVERGED,
    "Neumann, auto": Outcome.DIVERGED,
}
"""These name what they met."""

AT_SINGULAR = {
    "Dense": {Outcome.SINGULAR},
    "CG": {Outcome.SINGULAR, Outcome.NEGATIVE_CURVATURE},
    "CG, n = 3": {Outcome.SINGULAR, Outcome.NEGATIVE_CURVATURE},
    "Minres": {Outcome.SINGULAR},
    "Minres, n = 3": {Outcome.SINGULAR},
    "Neumann": {Outcome.LIMIT},
    "Neumann, auto": {Outcome.LIMIT},
    "Nystrom": {Outcome.CONVERGED},
}
"""A failure, or a limit with the residual that is left. Nystrom solves the damped system."""


@dataclasses.dataclass(frozen=True)
class Met:
    """What a method answered at a saddle: `error` relative to the response, and the reports."""

    error: float
    info: mlo.Info
    found: Answer


@functools.cache
def met(label: str, eigenvalues: tuple[float, ...], seed: int) -> Met:
    form = saddle(eigenvalues, seed=seed)
    found = answer(form, ALL[label])
    true, direct = flat(form.truth), flat(form.direct())
    return Met(norm(found.gradient - true) / norm(true - direct), found.infos[0], found)


def outcomes(label: str, eigenvalues: tuple[float, ...]) -> set[Outcome]:
    """Those on all draws."""
    return {met(label, eigenvalues, seed).info.outcome for seed in SEEDS}


def damped_share(eigenvalues: tuple[float, ...]) -> float:
    """How far damping takes a solve at most, relative to u."""
    return DAMPING / min(abs(mu + DAMPING) for mu in eigenvalues)
