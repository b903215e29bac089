r"""Three levels of one number each, where the middle one answers and asks.

    f3(z, y, x) = z^2/2 + kappa z^4/4 - z (2 y + x)      z + kappa z^3 = 2 y + x
    f2(y, z, x) = (y - x)^2/2 + z^2/2                    y minimizes f2(y, z(y, x), x)
    f1(y, z)    = (y - 1)^2/2 + (z - 1)^2/2              h = d f1(y(x), z(y(x), x)) / dx

With s = 1 + 3 kappa z^2, the lowest level answers z_y = 2/s and z_x = 1/s. The total gradient of
the middle level is G = (y - x) + 2 z/s, and h = f1_y y_x + f1_z (z_x + z_y y_x) with
y_x = -G_x / G_y. What stands for these two derivatives of G is what implementations differ in.
"""

from __future__ import annotations

from typing import Any

MINIMUM = 1.0
"""The x with the least f1 where kappa is 0: y = -x/5 and z = 3x/5, so h = 2 (x - 1) / 5."""


def problem(x: float, kappa: float) -> dict[str, Any]:
    """The problem as plain data, with the solution of the two lower levels."""
    y, z = solve(x, kappa)
    return {"kind": "three levels", "x": x, "kappa": kappa, "y": y, "z": z}


def solve(x: float, kappa: float) -> tuple[float, float]:
    """Both lower levels, y and z, by Newton's method on the total gradient of the middle level."""
    y = -x / 5
    for _ in range(100):
        z = lowest(2 * y + x, kappa)
        step = total_gradient(y, z, x, kappa) / _exact(z, kappa)[0]
        y -= step
        if abs(step) < 1e-15:
            break
    return y, lowest(2 * y + x, kappa)


def lowest(pull: float, kappa: float) -> float:
    """The root z of ``z + kappa z^3 = pull``, which is monotone in z."""
    z = pull / (1 + kappa * abs(pull) ** (2 / 3))
    for _ in range(100):
        step = (z + kappa * z**3 - pull) / (1 + 3 * kappa * z**2)
        z -= step
        if abs(step) < 1e-16:
            break
    return z


def total_gradient(y: float, z: float, x: float, kappa: float) -> float:
    """The derivative of ``f2(y, z(y, x), x)`` with respect to y."""
    return (y - x) + 2 * z / (1 + 3 * kappa * z**2)


def hypergradients(data: dict[str, Any]) -> dict[str, float]:
    """The exact one, and those of what implementations put in its place.

    `projected` drops the third derivative of f3. `partial` takes the middle level's own second
    derivatives, as if nothing were below it; `routes` does so too, and leaves out that the lowest
    level answers the middle one.
    """
    y, z, kappa = data["y"], data["z"], data["kappa"]
    s = 1 + 3 * kappa * z**2
    chosen = {
        "exact": (*_exact(z, kappa), 2 / s),
        "projected": (1 + 4 / s**2, -1 + 2 / s**2, 2 / s),
        "partial": (1.0, -1.0, 2 / s),
        "routes": (1.0, -1.0, 0.0),
    }
    return {
        name: (y - 1) * (-Gx / Gy) + (z - 1) * (1 / s + zy * (-Gx / Gy))
        for name, (Gy, Gx, zy) in chosen.items()
    }


def _exact(z: float, kappa: float) -> tuple[float, float]:
    """G_y and G_x: d(z/s)/dz = (1 - 3 kappa z^2) / s^2."""
    s = 1 + 3 * kappa * z**2
    bent = (1 - 3 * kappa * z**2) / s**3
    return 1 + 4 * bent, -1 + 2 * bent
