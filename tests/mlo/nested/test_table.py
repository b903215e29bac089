"""A scalar program of three levels, worked out by hand: exactly, and with terms left out.

    f3 = z^2 / 2 + kappa z^4 / 4 - z (2 y + x)
    f2 = (y - x)^2 / 2 + z^2 / 2
    f1 = (y - 1)^2 / 2 + (z - 1)^2 / 2

The middle level anticipates the lowest; kappa bends the lowest solution. With d = f3_zz, P = 2 / d
and R = 1 / d are the slopes of z with y and x, and dP/dz is all that third derivatives bring in:

    exact        y_yy = 1 + P^2 + P z dP/dz     y_yx = -1 + P R + R z dP/dz
    projected    y_yy = 1 + P^2                 y_yx = -1 + P R
    partial      y_yy = 1                       y_yx = -1
    h = f1_y y_x + f1_z (R + P y_x),            y_x = -y_yx / y_yy
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mlo

from ..oracles import Level, Values, engine_of, relative
from .oracles import settled, settled_slope, total_gradient
from .shortened import shortened_gradient

METHODS = {
    "dense": mlo.Dense(),
    "conjugate gradients": mlo.ConjugateGradient(iterations=5, tolerance=1e-14),
}
# h at x = 2, to the digits printed.
TABLE = {
    "exact": {0.0: 0.400000, 0.05: 0.246277, 0.5: 0.880125},
    "projected": {0.0: 0.400000, 0.05: 0.364513, 0.5: 0.696990},
    "partial": {0.0: -0.800000, 0.05: -0.183060, 0.5: 0.798849},
}
KAPPAS = tuple(TABLE["exact"])
SHORTENED = tuple(nested for nested in TABLE if nested != "exact")


def program(kappa: float) -> list[Level]:
    def lowest(z, y, x):
        z, y, x = z["z"], y["y"], x["x"]
        return z**2 / 2 + kappa / 4 * z**4 - z * (2 * y + x)

    def middle(y, x, z):
        return (y["y"] - x["x"]) ** 2 / 2 + z["z"] ** 2 / 2

    def top(y, z):
        return (y["y"] - 1) ** 2 / 2 + (z["z"] - 1) ** 2 / 2

    start = {"z": 1.3, "y": 0.1, "x": 2.0}
    losses = {"z": lowest, "y": middle, "x": top}
    return [Level(n, losses[n], {n: torch.tensor(start[n])}) for n in losses]


def solution(levels: list[Level]) -> Values:
    at = settled(levels, {level.name: dict(level.start) for level in levels}, 2)
    return {n: {k: t.detach() for k, t in own.items()} for n, own in at.items()}


def written_out(values: Values, kappa: float, nested: str) -> dict[str, Tensor]:
    z, y, x = (float(values[n][n]) for n in "zyx")
    d = 1 + 3 * kappa * z**2
    p, r, bend = 2 / d, 1 / d, -12 * kappa * z / d**2
    # The solution is stationary in both levels.
    assert abs(z + kappa * z**3 - 2 * y - x) < 1e-12
    assert abs(y - x + z * p) < 1e-11
    second, cross = {
        "exact": (1 + p * p + p * z * bend, -1 + p * r + r * z * bend),
        "projected": (1 + p * p, -1 + p * r),
        "partial": (1, -1),
    }[nested]
    slope = -cross / second
    return {"x": torch.tensor((y - 1) * slope + (z - 1) * (r + p * slope))}


def solved_anew(levels: list[Level], values: Values) -> dict[str, Tensor]:
    return {"x": settled_slope(levels, values, torch.ones(1))}


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("nested", TABLE)
def test_the_formulas_give_the_printed_table(nested, kappa):
    levels = program(kappa)
    values = solution(levels)
    found = written_out(values, kappa, nested)
    assert abs(float(found["x"]) - TABLE[nested][kappa]) < 1e-6
    if nested == "exact":
        assert relative(total_gradient(levels, values, "x"), found) < 1e-10
        # Fourth-order differences (see `central`) of the program solved anew.
        assert relative(solved_anew(levels, values), found) < 1e-8
    else:
        assert relative(shortened_gradient(levels, values, "x", nested), found) < 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_a_middle_level_that_anticipates_the_lowest_is_exact(kappa, method):
    levels = program(kappa)
    values = solution(levels)
    engine = engine_of(levels, values, METHODS[method])
    assert engine.graph.kind("y") == "anticipating"
    found = engine.hypergradient("x")
    assert abs(float(found["x"]) - TABLE["exact"][kappa]) < 1e-6
    assert relative(found, solved_anew(levels, values)) < 1e-8
    assert relative(found, written_out(values, kappa, "exact")) < 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_exact_is_the_default(kappa, method):
    levels = program(kappa)
    values = solution(levels)
    default = engine_of(levels, values, METHODS[method]).hypergradient("x")
    named = engine_of(levels, values, METHODS[method], nested="exact").hypergradient("x")
    assert torch.equal(default["x"], named["x"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("nested", SHORTENED)
def test_a_middle_level_with_terms_left_out_is_as_worked_out(nested, kappa, method):
    levels = program(kappa)
    values = solution(levels)
    found = engine_of(levels, values, METHODS[method], nested=nested).hypergradient("x")
    assert abs(float(found["x"]) - TABLE[nested][kappa]) < 1e-6
    assert relative(found, written_out(values, kappa, nested)) < 1e-10


@pytest.mark.parametrize("nested", SHORTENED)
def test_a_middle_level_moves_on_its_total_gradient_whatever_is_left_out_above_it(nested):
    levels = program(0.5)
    values = solution(levels)
    values["y"] = {"y": values["y"]["y"] + 0.3}
    expected = total_gradient(levels, values, "y")
    found = engine_of(levels, values, mlo.Dense(), nested=nested).hypergradient("y")
    assert relative(found, expected) < 1e-10
