"""Float32 and bfloat16: the same claims with settings that suit the dtype."""

from __future__ import annotations

import dataclasses
import functools

import torch

import mlo

from . import theory
from .claims import ALL, CLAIMS, Claim
from .measured import Row, measured_with

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RADII = {torch.float32: 0.01, torch.bfloat16: 1.0}
"""The default radii, see `FiniteDifference`."""

WIDE = 0.05
"""A damping that bfloat16 can see."""

PROBLEMS = ("quadratic", "ridge", "logistic", "lfm-shaped")
SEEDS = (31, 32)


def suited(label: str, dtype: torch.dtype) -> Claim:
    """The claim of the table with settings for a dtype."""
    claim = ALL[label]
    if claim.radius is not None:  # None: the default
        method = dataclasses.replace(claim.method, radius=None)
        return dataclasses.replace(claim, method=method, radius=RADII[dtype])
    if label == "Nystrom":
        return dataclasses.replace(
            claim,
            method=mlo.Nystrom(rank=20, damping=WIDE),
            textbook=lambda H, v: theory.damped(H, v, WIDE),
            decay=lambda mu: WIDE / float(abs(mu + WIDE).min()),
            amplified=lambda mu: float(abs(mu).max() / abs(mu + WIDE).min()),
        )
    return claim


@functools.cache
def narrow(label: str, problem: str, seed: int, dtype: torch.dtype) -> Row:
    """One unit of rounding (finfo.eps) a product, instead of the 30 of float64."""
    return measured_with(suited(label, dtype), problem, seed, dtype, lost=1.0)


def claimed() -> list[str]:
    """One setting of each method."""
    return [claims[0].label for claims in CLAIMS.values()]


def allowed_narrow(label: str, dtype: torch.dtype) -> float:
    """What rounding may do at most, on all problems and draws."""
    rows = [narrow(label, problem, seed, dtype) for problem in PROBLEMS for seed in SEEDS]
    assert all(row.error <= row.allowed for row in rows)
    return max(row.slack for row in rows)
