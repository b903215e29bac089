"""What the sources promise: textbook answers and bounds, by dense linear algebra.

H is symmetric with eigenvalues mu, v a right-hand side, u = H^{-1} v.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def exact(H: Array, v: Array) -> Array:
    return np.linalg.solve(H, v)


def krylov(H: Array, v: Array, dimension: int) -> Array:
    """An orthonormal basis of span(v, H v, ...), twice orthogonalized."""
    basis: list[Array] = []
    new = v
    for _ in range(min(dimension, len(v))):
        for _ in range(2):
            for q in basis:
                new = new - (q @ new) * q
        size = np.linalg.norm(new)
        if size < 1e-12 * np.linalg.norm(H, 2) * (1 if basis else np.linalg.norm(v) or 1):
            break
        basis.append(new / size)
        new = H @ basis[-1]
    return np.array(basis).T if basis else np.zeros((len(v), 0))


def conjugate_gradient(H: Array, v: Array, iterations: int) -> Array:
    """Hestenes and Stiefel, 1952: the smallest error in the norm of H in the Krylov space."""
    Q = krylov(H, v, iterations)
    return Q @ np.linalg.solve(Q.T @ H @ Q, Q.T @ v)


def minimal_residual(H: Array, v: Array, iterations: int) -> Array:
    """Paige and Saunders, 1975: the smallest residual in the Krylov space."""
    Q = krylov(H, v, iterations)
    return Q @ np.linalg.lstsq(H @ Q, v, rcond=None)[0]


def neumann(H: Array, v: Array, terms: int, alpha: float) -> Array:
    """Lorraine et al., 2020, algorithm 3: the sum as it is written."""
    term = total = alpha * v
    for _ in range(terms - 1):
        term = term - alpha * (H @ term)
        total = total + term
    return total


def damped(H: Array, v: Array, damping: float) -> Array:
    return np.linalg.solve(H + damping * np.eye(len(v)), v)


def spread(mu: Array) -> float:
    """The condition number."""
    return float(np.abs(mu).max() / np.abs(mu).min())


def distinct(mu: Array) -> int:
    return len(np.unique(np.round(mu / np.abs(mu).max(), 9)))


def chebyshev(mu: Array, steps: int) -> float:
    """2 ((sqrt k - 1) / (sqrt k + 1))^n, or 0 after as many steps as there are eigenvalues."""
    if steps >= distinct(mu):
        return 0.0
    root = math.sqrt(spread(mu))
    return float(min(1.0, 2.0 * ((root - 1) / (root + 1)) ** steps))


def minres_decay(mu: Array, steps: int) -> float:
    """The same for a definite H; else 2 ((k - 1) / (k + 1))^{n / 2} (Elman et al., thm. 4.14)."""
    if mu.min() > 0 or steps >= distinct(mu):
        return chebyshev(mu, steps)
    k = spread(mu)
    return min(1.0, 2.0 * ((k - 1) / (k + 1)) ** (steps // 2))


def series_decay(mu: Array, terms: int, alpha: float) -> float:
    """max |1 - alpha mu|^K."""
    return float((np.abs(1 - alpha * mu) ** terms).max())


def power_slack(size: int, iterations: int) -> float:
    """How far the bound of Dixon, 1983, theorem 1, may be above |H|, with a failure of 1 %."""
    return float((2.0 / math.pi * size / 0.01**2) ** (0.5 / iterations))


def nystrom_gap(lost: float, damping: float) -> float:
    """Frangella et al., 2023: |(H_k + d)^{-1} - (H + d)^{-1}| at most, with lost = |H - H_k|."""
    return lost / (damping * (lost + damping))


def nystrom_mean(mu: Array, rank: int) -> float:
    """Frangella et al., proposition 2.2: a bound of the mean of |H - H_k| over Gaussian draws."""
    mu = np.sort(mu)[::-1]

    def at(p: int) -> float:
        first = (1 + 2 * (rank - p) / (p - 1)) * mu[rank - p]
        return float(first + 2 * math.e**2 * rank / (p**2 - 1) * mu[rank - p :].sum())

    return min(at(p) for p in range(2, rank - 1))
