r"""The audited problems as plain data, for scripts that know nothing but numbers.

    lower:  f(w, x) = w^T A w / 2 - w^T (B x + b)        w* = A^{-1} (B x + b)
    upper:  F(w, x) = |w - t|^2 / 2 + direct * sum(x)    h  = B^T A^{-1} (w* - t) + direct

`quadratic` and its variants are of this kind; `three levels` and `curved` are written out in
`benchmarks.audit.reference`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from benchmarks.audit import three_levels

Problem: TypeAlias = dict[str, Any]

SEED = 0
SIZE, UPPER = 6, 4
LARGEST = 10.2
"""Largest curvature of `quadratic`; the smallest is 1."""


def problems() -> dict[str, Problem]:
    """Name -> data, JSON-able; all numbers are drawn from `SEED`."""
    base = _quadratic(np.geomspace(1.0, LARGEST, SIZE))
    target = np.array(base["t"])
    summed = np.outer(np.array(base["B"])[:, 0], np.ones(UPPER))
    return {
        "quadratic": base,
        "one curvature": _quadratic(np.full(SIZE, 2.0)),
        "one parameter": _quadratic(np.array([3.0])),
        "two parameters": _quadratic(np.array([1.0, 3.0])),
        "answered": {**base, "t": base["w"]},
        "nan above": {**base, "t": [float("nan"), *target[1:].tolist()]},
        "two vectors": {**base, "parts": 2},
        "summed below": _solved({**base, "B": summed.tolist(), "summed": True}),
        "summed above": {**base, "direct": 1.0},
        "detached": {**base, "detached": True},
        "frozen": {**base, "frozen": True},
        "dropout": {**base, "dropout": 0.5},
        "curved": {"kind": "curved", "x": 8.0, "w": 4.0},
        **{
            f"three levels, kappa {kappa:g}": three_levels.problem(2.0, kappa)
            for kappa in (0.0, 0.05, 0.5)
        },
        "three levels, trained": {"kind": "trained", "x": 2.0, "kappa": 0.0},
        "bookkeeping": {**base, "kind": "bookkeeping"},
    }


def _quadratic(curvatures: np.ndarray) -> Problem:
    """A quadratic with these curvatures in a random basis, and its solution."""
    generator = np.random.default_rng(SEED)
    size = len(curvatures)
    basis, _ = np.linalg.qr(generator.standard_normal((size, size)))
    hessian = (basis * curvatures) @ basis.T
    if len(set(curvatures)) == 1:
        hessian = np.diag(curvatures)  # without rounding
    data = {
        "A": (hessian + hessian.T) / 2,
        "B": generator.standard_normal((size, UPPER)),
        "b": generator.standard_normal(size),
        "t": generator.standard_normal(size),
        "x": generator.standard_normal(UPPER),
        "start": generator.standard_normal(size),
    }
    plain = {name: array.tolist() for name, array in data.items()}
    plain_losses = {"summed": False, "detached": False, "frozen": False, "dropout": 0.0}
    return _solved({"kind": "quadratic", "direct": 0.0, "parts": 1, **plain_losses, **plain})


def _solved(problem: Problem) -> Problem:
    """The same with `w`, where the lower loss is minimal."""
    A, B, b, x = (np.array(problem[name]) for name in ("A", "B", "b", "x"))
    return {**problem, "w": np.linalg.solve(A, B @ x + b).tolist()}
