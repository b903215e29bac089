"""Which methods may serve where: below, at and beside a problem that anticipates."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import DeclarationError, MethodError

from ..oracles import Level, engine_of, relative, starts
from .coupled import coupled_program
from .test_table import program, solution

SIZE = {"a": (2,)}
# Who reads whom besides itself; `y` anticipates `z`, and `v` both.
CHAIN = {"z": ("y", "v"), "y": ("z", "v"), "v": ("y", "x"), "x": ("v",)}
STAGED = {"y": ("x",), "z": ("y", "x"), "x": ("z", "y")}
RECORDED = {
    "one step": mlo.OneStep(),
    "central differences": mlo.FiniteDifference(),
    "forward differences": mlo.FiniteDifference(scheme="forward"),
}
ALTERNATIVES = ("Neumann", "ConjugateGradient", "Dense")


def built(table: dict, methods: dict[str, mlo.Hypergradient], **settings: object) -> mlo.Engine:
    levels = levels_of(table)
    rest = dict.fromkeys(table, mlo.Dense())
    return engine_of(levels, starts(levels), {**rest, **methods}, **settings)


def levels_of(table: dict) -> list[Level]:
    return coupled_program(table, dict.fromkeys(table, SIZE))


@pytest.mark.parametrize("below", ["z", "y"])
@pytest.mark.parametrize("method", RECORDED)
def test_a_recorded_move_is_refused_below_a_problem_that_anticipates(method, below):
    with pytest.raises(MethodError) as caught:
        built(CHAIN, {below: RECORDED[method]})
    message = str(caught.value)
    assert caught.value.problem == below
    assert f"'{below}'" in message
    assert f"hypergradient={type(RECORDED[method]).__name__}" in message
    assert "anticipates" in message
    assert all(name in message for name in ALTERNATIVES)


@pytest.mark.parametrize("at", ["y", "v"])
def test_a_finite_difference_is_refused_at_a_problem_that_anticipates(at):
    """At shifted parameters those below would answer from where they stand: the wrong place."""
    with pytest.raises(MethodError, match=f"'{at}'") as caught:
        built(CHAIN, {at: mlo.FiniteDifference()})
    assert all(name in str(caught.value) for name in ALTERNATIVES)


def test_a_method_of_ones_own_is_refused_below_unless_it_says_that_it_can_be_differentiated():
    class Once(mlo.Dense):
        differentiable = False

    with pytest.raises(MethodError, match="hypergradient=Once"):
        built(CHAIN, {"z": Once()})
    built(CHAIN, {"z": type("Again", (Once,), {"differentiable": True})()})


@pytest.mark.parametrize("method", [mlo.Dense(), mlo.ConjugateGradient(), mlo.Neumann()])
def test_the_implicit_methods_serve_everywhere(method):
    engine = built(CHAIN, dict.fromkeys(CHAIN, method))
    kinds = {name: engine.graph.kind(name) for name in CHAIN}
    assert kinds == {"z": "staged", "y": "anticipating", "v": "anticipating", "x": "upper"}


@pytest.mark.parametrize("method", RECORDED)
def test_a_recorded_move_serves_where_nobody_anticipates(method):
    engine = built(STAGED, dict.fromkeys(STAGED, RECORDED[method]))
    assert {engine.graph.kind(name) for name in ("z", "y")} == {"staged"}


@pytest.mark.parametrize("below", ["z", "y"])
@pytest.mark.parametrize("method", RECORDED)
def test_a_recorded_move_is_refused_below_when_exact_is_asked_for_by_name(method, below):
    with pytest.raises(MethodError, match=f"'{below}'"):
        built(CHAIN, {below: RECORDED[method]}, nested="exact")


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_one_step_serves_at_a_problem_that_anticipates(kappa):
    """With y' = y - eta g(y, x), g total and z where it stands,

    h = f1_z R + (f1_y(y') + P f1_z) dy'/dx,    dy'/dx = -eta dg/dx.
    """
    levels, eta = program(kappa), 0.1
    values = solution(levels)
    values["y"] = {"y": values["y"]["y"] + 0.3}
    z, y, x = (float(values[n][n]) for n in "zyx")
    d = 1 + 3 * kappa * z**2
    p, r, bend = 2 / d, 1 / d, -12 * kappa * z / d**2
    moved = y - eta * (y - x + z * p)
    slope = -eta * (-1 + p * r + r * z * bend)
    expected = {"x": torch.tensor((z - 1) * r + (moved - 1 + p * (z - 1)) * slope)}
    methods = {"z": mlo.Dense(), "y": mlo.OneStep()}
    found = engine_of(levels, values, methods, rate=eta).hypergradient("x")
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("nested", ["exact", "projected", "partial"])
def test_nothing_is_left_out_where_nobody_anticipates(nested):
    default = built(STAGED, {}).hypergradient("x")
    found = built(STAGED, {}, nested=nested).hypergradient("x")
    assert torch.equal(found["a"], default["a"])


@pytest.mark.parametrize("nested", ["exactly", "", None, True])
def test_an_unknown_way_of_nesting_is_refused_by_name(nested):
    with pytest.raises(DeclarationError, match="nested=") as caught:
        built(CHAIN, {}, nested=nested)
    assert all(name in str(caught.value) for name in ("exact", "projected", "partial"))
