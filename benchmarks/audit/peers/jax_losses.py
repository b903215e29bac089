"""The losses of the audited problems in jax."""

from __future__ import annotations

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)


def quadratic(data):
    """The lower and the upper loss, and the upper parameters."""
    A, B, b, t, x = (jnp.array(data[name]) for name in ("A", "B", "b", "t", "x"))

    def lower(w, x):
        return 0.5 * w @ (A @ w) - w @ (B @ x + b)

    def upper(w, x):
        return 0.5 * jnp.sum((w - t) ** 2) + data["direct"] * jnp.sum(x)

    return lower, upper, x


def middle_loss(y, z, x):
    """The loss of the middle of three levels."""
    return (y - x) ** 2 / 2 + z**2 / 2
