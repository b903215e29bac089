"""Programs of depth 3 by matrices: what inexact solves below do to the reduced Hessian above."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np

from . import theory
from .claims import NESTED, RATE, SEEDS, Claim, Solve
from .matrices import Array, at_solution, bend, flat
from .programs import decayed, drawn, norm, standing


@functools.cache
def bends(problem: str, seed: int) -> list[dict[tuple[str, str], Array]]:
    """Third derivatives of the lowest loss, once by each of its own parameters."""
    form = drawn(problem, seed)
    low = form.levels[0]
    size = len(flat(low.solution))
    return [bend(low, at_solution(form), low.name, e) for e in np.eye(size)]


def nested_pull(problem: str, seed: int, low_map: Array) -> tuple[dict[str, Array], Array, Array]:
    """Depth 3 with S in the place of H^{-1} below: what the middle problem's condition becomes.

    Returns:
        The pieces: reduced Hessian F, its mixed block G, tangents of the low problem; then the
        cotangent of the middle, and the part of the answer that does not go through it.
    """
    z, y, x = standing(problem, seed)
    at = standing(problem, seed)
    third, second, first = at[z].curvature, at[y], at[x].slope
    p = low_map @ second.slope[z]
    L = {
        key: block - sum(c * B[key] for c, B in zip(p, bends(problem, seed), strict=True))
        for key, block in second.curvature.items()
    }
    t_y, t_x = -low_map @ third[z, y], -low_map @ third[z, x]
    F = L[y, y] + L[y, z] @ t_y + t_y.T @ (L[z, y] + L[z, z] @ t_y)
    G = L[y, x] + L[y, z] @ t_x + t_y.T @ (L[z, x] + L[z, z] @ t_x)
    v = first[y] + t_y.T @ first[z]
    rest = first[x] + t_x.T @ first[z]
    return {"F": F, "G": G, "t_y": t_y, "t_x": t_x, "L": L, "p": p}, v, rest


def nested_truth(
    problem: str, seed: int, below: Solve = theory.exact, middle: Solve = theory.exact
) -> tuple[Array, Array]:
    """The gradient of a program of depth 3 where its problems solve so, and its direct part."""
    at = standing(problem, seed)
    low, _, top = at
    H = at[low].curvature[low, low]
    S = np.array([below(H, e) for e in np.eye(len(H))]).T
    pieces, v, rest = nested_pull(problem, seed, S)
    return rest - pieces["G"].T @ middle(pieces["F"], v), at[top].slope[top]


def nested_spectrum(problem: str, seed: int) -> Array:
    """The eigenvalues of the middle problem's reduced Hessian."""
    low = next(iter(standing(problem, seed)))
    H = standing(problem, seed)[low].curvature[low, low]
    return np.linalg.eigvalsh(nested_pull(problem, seed, np.linalg.inv(H))[0]["F"])


@functools.cache
def seeds(problem: str) -> tuple[int, ...]:
    """Those of the table; of depth 3, the next where the middle problem stands at a minimum.

    Its curvature is below 2 / RATE, as that of all others, so that gradient descent converges.
    """
    if problem not in NESTED:
        return SEEDS
    found: list[int] = []
    for seed in itertools.count(SEEDS[0]):
        mu = nested_spectrum(problem, seed)
        found += [seed] * bool(mu.min() > 0.05 and mu.max() < 2 / RATE)
        if len(found) == len(SEEDS):
            return tuple(found)


def nested_bound(problem: str, seed: int, claim: Claim, unit: float) -> float:
    """The same for depth 3: what inexact solves do to the tangents and the reduced Hessian."""
    at = standing(problem, seed)
    low, middle, top = at
    third, first = at[low].curvature, at[top].slope
    H, inverse = third[low, low], np.linalg.inv(third[low, low])
    pieces, v, _ = nested_pull(problem, seed, inverse)
    whole, direct = nested_truth(problem, seed)
    lost = _relative(claim, np.linalg.eigvalsh(H), unit) * norm(inverse)  # |S - H^{-1}|
    t = {name: norm(pieces[name]) for name in ("t_y", "t_x")}
    dt = {"t_y": lost * norm(third[low, middle]), "t_x": lost * norm(third[low, top])}
    third_size = norm(np.array([norm(_whole(B)) for B in bends(problem, seed)]))
    L = norm(_whole(pieces["L"]))
    dL = lost * norm(at[middle].slope[low]) * third_size + unit * L
    a, b = np.hypot(1, t["t_y"]), np.hypot(1, t["t_x"])
    dF = (a + dt["t_y"]) ** 2 * (L + dL) - a**2 * L
    dG = (a + dt["t_y"]) * (L + dL) * (b + dt["t_x"]) - a * L * b
    gain = norm(np.linalg.inv(pieces["F"]))
    if gain * dF >= 1:
        return np.inf
    near = gain / (1 - gain * dF)
    fs = np.linalg.eigvalsh(pieces["F"])
    fs = np.array([fs.min() - dF, *fs, fs.max() + dF])
    dv = dt["t_y"] * norm(first[low]) + unit * norm(v)
    error = _relative(claim, fs, unit)
    u = norm(np.linalg.solve(pieces["F"], v))
    du = near * (dF * u + dv) + error * (u + near * (dF * u + dv))
    off = dt["t_x"] * norm(first[low]) + dG * (u + du) + norm(pieces["G"]) * du
    return float((off + unit * norm(direct)) / norm(whole - direct))


def _relative(claim: Claim, mu: Array, unit: float) -> float:
    """|S v - u| / |u| at most."""
    theirs = decayed(claim, mu, claim.power) * theory.spread(mu) ** claim.power
    return theirs + unit * (1 + claim.amplified(mu))


def _whole(blocks: Mapping[tuple[str, str], Array]) -> Array:
    names = list(dict.fromkeys(a for a, _ in blocks))
    return np.block([[blocks[a, b] for b in names] for a in names])
