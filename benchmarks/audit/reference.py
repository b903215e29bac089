r"""What each algorithm gives on a quadratic, in numpy, written from its definition.

A hypergradient is ``h = B^T u + direct`` with ``A u = v``, v = w* - t; an algorithm puts another u
in that place. The distance to the solution says how good an algorithm is, the distance to what
follows from its definition whether it is the one that it says it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from benchmarks.audit import three_levels, unrolled
from benchmarks.audit.problems import Problem

Reference: TypeAlias = tuple[str, dict[str, Any]]
"""A name of `REFERENCES` and its arguments."""


def value(problem: Problem, reference: Reference) -> np.ndarray:
    """What the algorithm of that name gives on this problem."""
    name, arguments = reference
    if problem["kind"] == "three levels":
        return np.array([three_levels.hypergradients(problem)[name]])
    if problem["kind"] == "trained":
        return np.array([three_levels.MINIMUM])
    if problem["kind"] == "bookkeeping":
        return np.array([0.0, 1.0])
    if problem["kind"] == "curved":
        return _curved(problem)
    if name == "unrolled":
        return unrolled.hypergradient(problem, **arguments)
    return _pulled(problem, REFERENCES[name](problem, **arguments))


def solution(problem: Problem) -> np.ndarray:
    """The hypergradient itself."""
    return value(problem, ("exact", {}))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative in the Euclidean norm; absolute where zero is expected."""
    if found.shape != expected.shape:
        return math.nan
    size = float(np.linalg.norm(expected))
    gap = float(np.linalg.norm(found - expected))
    return gap / size if size > 0 else gap


def exact(problem: Problem) -> np.ndarray:
    """``u = A^{-1} v``."""
    return np.linalg.solve(_array(problem, "A"), _cotangent(problem))


def conjugate_gradients(problem: Problem, iterations: int) -> np.ndarray:
    """Hestenes and Stiefel from zero, stopped where nothing is left."""
    A, rest = _array(problem, "A"), _cotangent(problem)
    u, direction = np.zeros_like(rest), rest
    first = np.linalg.norm(rest)
    for _ in range(iterations):
        if np.linalg.norm(rest) <= 1e-15 * first:
            break
        product = A @ direction
        step = rest @ rest / (direction @ product)
        u = u + step * direction
        new = rest - step * product
        direction = new + (new @ new) / (rest @ rest) * direction
        rest = new
    return u


def krylov(problem: Problem, iterations: int, residual: bool = False) -> np.ndarray:
    """The best u in span{v, A v, ...}: in the norm of A, or with the smallest residual."""
    A, v = _array(problem, "A"), _cotangent(problem)
    powers = [v]
    for _ in range(iterations - 1):
        powers.append(A @ powers[-1])
    basis, _ = np.linalg.qr(np.stack(powers, axis=1))
    if residual:
        return basis @ np.linalg.lstsq(A @ basis, v, rcond=None)[0]
    return basis @ np.linalg.solve(basis.T @ A @ basis, basis.T @ v)


def neumann(problem: Problem, terms: int, alpha: float) -> np.ndarray:
    """``u = alpha sum_{k < terms} (I - alpha A)^k v``."""
    A, term = _array(problem, "A"), _cotangent(problem)
    total = np.zeros_like(term)
    for _ in range(terms):
        total = total + alpha * term
        term = term - alpha * (A @ term)
    return total


def damped(problem: Problem, damping: float) -> np.ndarray:
    """``(A + damping I) u = v``."""
    A = _array(problem, "A")
    return np.linalg.solve(A + damping * np.eye(len(A)), _cotangent(problem))


def scaled(problem: Problem, rate: float) -> np.ndarray:
    """``u = rate v``: the derivative of one step of gradient descent."""
    return rate * _cotangent(problem)


def _array(problem: Problem, name: str) -> np.ndarray:
    return np.array(problem[name])


def _cotangent(problem: Problem) -> np.ndarray:
    return _array(problem, "w") - _array(problem, "t")


def _pulled(problem: Problem, u: np.ndarray) -> np.ndarray:
    """``B^T u + direct`` for each part of the upper parameters."""
    h = _array(problem, "B").T @ u + problem["direct"]
    return np.tile(h, problem["parts"])


def _curved(problem: Problem) -> np.ndarray:
    """First and second derivative of F = w^2 = x^(4/3), w the minimum of w^4/4 - x^2 w."""
    x = problem["x"]
    return np.array([4 / 3 * x ** (1 / 3), 4 / 9 * x ** (-2 / 3)])


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "exact": exact,
    "conjugate gradients": conjugate_gradients,
    "krylov": krylov,
    "neumann": neumann,
    "damped": damped,
    "scaled": scaled,
}
"""Algorithms by name; those that are no linear solve are in `benchmarks.audit.unrolled`."""
