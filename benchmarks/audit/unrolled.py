r"""Steps of optimizers on a quadratic, differentiated by complex steps in numpy.

Every step is analytic in x, so ``Im F(w_K(x + i e)) / e`` at a tiny e is the derivative of F
through the steps to the last digit, without any chain rule. `tracked` perturbs x in the last
steps only, which is what truncated back-propagation differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-30
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 1e-2
"""The defaults of `torch.optim.Adam` and `AdamW`."""


def hypergradient(
    problem: dict[str, Any],
    optimizer: str,
    steps: int,
    rate: float,
    tracked: int | None = None,
) -> np.ndarray:
    """The derivative of F after so many steps from `start`, in the last `tracked` steps."""
    x, t = np.array(problem["x"]), np.array(problem["t"])
    first = 0 if tracked is None else steps - tracked

    def loss(bent: np.ndarray) -> complex:
        w = walk(problem, optimizer, rate, [x] * first + [bent] * (steps - first))
        return 0.5 * np.sum((w - t) ** 2) + problem["direct"] * np.sum(bent)

    directions = np.eye(len(x))
    return np.array([loss(x + 1j * STEP * e).imag / STEP for e in directions])


def walk(problem: dict[str, Any], optimizer: str, rate: float, xs: list[np.ndarray]) -> np.ndarray:
    """The parameters after one step for each x."""
    A, B, b = (np.array(problem[name]) for name in ("A", "B", "b"))
    w, state = np.array(problem["start"], dtype=complex), (0.0, 0.0)
    for count, x in enumerate(xs, start=1):
        gradient = A @ w - (B @ x + b)
        w, state = STEPS[optimizer](w, gradient, rate, count, state)
    return w


def _sgd(w: Any, g: Any, rate: float, count: int, state: Any) -> tuple[Any, Any]:
    return w - rate * g, state


def _adam(w: Any, g: Any, rate: float, count: int, state: Any) -> tuple[Any, Any]:
    one, two = BETAS
    m, v = one * state[0] + (1 - one) * g, two * state[1] + (1 - two) * g * g
    scale = np.sqrt(v / (1 - two**count)) + EPS
    return w - rate * m / (1 - one**count) / scale, (m, v)


def _adamw(w: Any, g: Any, rate: float, count: int, state: Any) -> tuple[Any, Any]:
    return _adam(w * (1 - rate * DECAY), g, rate, count, state)


STEPS: dict[str, Callable[..., tuple[Any, Any]]] = {"SGD": _sgd, "Adam": _adam, "AdamW": _adamw}
