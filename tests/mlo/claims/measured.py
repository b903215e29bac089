"""Every method on every problem that it claims, measured once."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import torch

import mlo

from .claims import ALL, NESTED, Claim
from .matrices import Array
from .nested import nested_bound, nested_truth, seeds
from .programs import answer, bound, drawn, norm, textbook, truth

LOST = 30.0
"""Units of rounding that losses and products may lose, in all bounds."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one problem.

    Attributes:
        error: relative to the response; 1 is that of leaving it out.
        allowed: what the theory and rounding allow.
        own: how far it is from the textbook's answer for the same settings, or `None`.
        slack: what rounding allows there.
        along: inner product of the response with the true one, both of length 1.
        outcomes: reported, one a response.
    """

    error: float
    allowed: float
    own: float | None
    slack: float
    along: float
    outcomes: tuple[mlo.Outcome, ...]


@functools.cache
def measured(label: str, problem: str, seed: int, dtype: torch.dtype = torch.float64) -> Row:
    """A claim of the table on a draw of a form."""
    return measured_with(ALL[label], problem, seed, dtype)


def measured_with(
    claim: Claim,
    problem: str,
    seed: int,
    dtype: torch.dtype = torch.float64,
    lost: float = LOST,
) -> Row:
    """Ask the engine, and compare with what is known."""
    unit = lost * torch.finfo(dtype).eps
    exact, direct = right(claim, problem, seed)
    found = answer(drawn(problem, seed, dtype), claim)
    response, true = found.gradient - direct, exact - direct
    book = None
    if claim.textbook is not None:
        book = norm(found.gradient - by_the_book(claim, problem, seed)) / norm(true)
    length = norm(response) * norm(true)
    return Row(
        norm(response - true) / norm(true),
        limit(claim, problem, seed, unit),
        book,
        rounding(claim, problem, seed, unit),
        float(response @ true) / length if length > 0 else 0.0,
        tuple(found.outcomes),
    )


def right(claim: Claim, problem: str, seed: int) -> tuple[Array, Array]:
    """The exact gradient and its direct part."""
    return (
        nested_truth(problem, seed) if problem in NESTED else truth(problem, seed, claim.reach)[:2]
    )


def by_the_book(claim: Claim, problem: str, seed: int) -> Array:
    """The gradient where every problem solves as the textbook does."""
    if problem in NESTED:
        return nested_truth(problem, seed, claim.textbook, claim.textbook)[0]
    return textbook(problem, seed, claim)


def rounding(claim: Claim, problem: str, seed: int, unit: float) -> float:
    """What rounding, and stopping at a tolerance, may do."""
    if not claim.solves and claim.reach is None:
        exact, direct = right(claim, problem, seed)
        return unit * (1.0 + 4.0 * norm(direct) / norm(exact - direct))  # that of the direct part
    exactly = dataclasses.replace(claim, decay=claim.decay and (lambda mu: 0.0))
    return (nested_bound if problem in NESTED else bound)(problem, seed, exactly, unit)


def limit(claim: Claim, problem: str, seed: int, unit: float) -> float:
    """What the theory and rounding allow.

    In a nested program errors of inner solves enter the outer Hessian; what the textbook's solves
    do there is calculated, not bounded.
    """
    if not claim.solves and claim.reach is None:
        return 1.0 + rounding(claim, problem, seed, unit)  # the direct part alone
    if problem not in NESTED:
        return bound(problem, seed, claim, unit)
    exact, direct = nested_truth(problem, seed)
    predicted = max(
        norm(nested_truth(problem, seed, low, middle)[0] - exact)
        for low, middle in itertools.product(claim.perhaps or (claim.textbook,), repeat=2)
    )
    return predicted / norm(exact - direct) + rounding(claim, problem, seed, unit)


def worst(label: str, problem: str) -> tuple[float, float]:
    """The largest error and the largest bound over all draws."""
    rows = [measured(label, problem, seed) for seed in seeds(problem)]
    return max(row.error for row in rows), max(row.allowed for row in rows)
