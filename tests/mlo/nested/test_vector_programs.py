"""Vector programs of three and four levels: middle levels that anticipate, one upon another."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

import mlo

from ..oracles import Level, Params, Values, engine_of, flat, relative, starts
from .coupled import coupled_program
from .oracles import (
    Stacked,
    balanced,
    nesting,
    responders,
    settled_slope,
    total_gradient,
)
from .shortened import shortened_gradient


@dataclasses.dataclass(frozen=True)
class Program:
    """Who reads whom besides itself, lowest first; sizes; what a reader does not look at."""

    reads: dict[str, tuple[str, ...]]
    shapes: dict[str, dict[str, tuple[int, ...]]]
    unseen: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    seed: int = 2
    depth: int = 2


PROGRAMS = {
    "three levels": Program(
        {"z": ("y", "x"), "y": ("z", "x"), "x": ("y", "z")},
        {"z": {"a": (4,)}, "y": {"a": (3,)}, "x": {"a": (2,)}},
    ),
    "a middle level of several parameters, one of them unseen from below": Program(
        {"z": ("y", "x"), "y": ("z", "x"), "x": ("y", "z")},
        {"z": {"a": (2, 1), "b": (1,)}, "y": {"a": (1, 2), "b": (), "c": (2,)}, "x": {"a": (2,)}},
        {("z", "y"): "c"},
        seed=1,
    ),
    "an anticipated and a staged problem below the middle level": Program(
        {"s": ("x",), "z": ("y", "s", "x"), "y": ("z", "s", "x"), "x": ("y", "z", "s")},
        {"s": {"a": (2,)}, "z": {"a": (3,)}, "y": {"a": (2,)}, "x": {"a": (2,)}},
        seed=5,
    ),
    "a middle level that meets the top one only in what it reads": Program(
        {"z": ("y", "x"), "y": ("z",), "x": ("y",)},
        {"z": {"a": (3,)}, "y": {"a": (2,)}, "x": {"a": (2,)}},
        seed=7,
    ),
    "four levels": Program(
        {
            "z": ("y", "v", "x"),
            "y": ("z", "v", "x"),
            "v": ("z", "y", "x"),
            "x": ("v", "y", "z"),
        },
        {"z": {"a": (3,)}, "y": {"a": (2,)}, "v": {"a": (2,)}, "x": {"a": (2,)}},
        seed=0,
        depth=3,
    ),
    "four levels that see only their neighbours": Program(
        {"z": ("y",), "y": ("z", "v"), "v": ("y", "x"), "x": ("v",)},
        {"z": {"a": (3,)}, "y": {"a": (2,)}, "v": {"a": (2,)}, "x": {"a": (2,)}},
        seed=4,
        depth=3,
    ),
}
SOLVERS = {
    "dense": mlo.Dense(),
    # More iterations than any of these problems has parameters.
    "conjugate gradients": mlo.ConjugateGradient(iterations=10, tolerance=1e-13),
}


@functools.cache
def solved(name: str) -> tuple[list[Level], Values]:
    """The program at its solution."""
    declared = PROGRAMS[name]
    levels = coupled_program(
        declared.reads, declared.shapes, declared.unseen, strength=0.9, seed=declared.seed
    )
    return levels, balanced(levels, starts(levels), "x")


@functools.cache
def expected(name: str) -> Params:
    return total_gradient(*solved(name), "x")


def spectra(name: str) -> dict[str, Tensor]:
    """Problem below -> the eigenvalues of the Hessian that its solve is made with."""
    levels, values = solved(name)
    at = Stacked(levels, values)
    return {n: torch.linalg.eigvalsh(at.curvature(n)) for n in responders(levels, "x")}


def found(name: str, method: object, **settings: object) -> Params:
    return engine_of(*solved(name), method, **settings).hypergradient("x")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_dense_answer_is_that_of_the_program_solved_anew(name):
    levels, values = solved(name)
    assert nesting(levels, "x") == PROGRAMS[name].depth
    assert all(low.min() > 0.5 for low in spectra(name).values())
    direction = torch.tensor([0.6, -0.8])
    slope = flat(expected(name)) @ direction
    # Nested Newton solves to 1e-12 under fourth-order differences: they agree to 1e-10 and better.
    assert abs(slope - settled_slope(levels, values, direction)) < 1e-9 * abs(slope)


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_nested_hypergradient_is_exact(name, method):
    levels, values = solved(name)
    engine = engine_of(levels, values, SOLVERS[method])
    middle = [n for n in responders(levels, "x") if responders(levels, n)]
    assert [n for n in values if engine.graph.anticipates(n)] == middle
    assert relative(engine.hypergradient("x"), expected(name)) < 1e-10


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_middle_level_has_its_total_gradient_away_from_the_solution(name):
    levels, _ = solved(name)
    values = starts(levels)
    engine = engine_of(levels, values, mlo.Dense())
    for n in responders(levels, "x"):
        assert relative(engine.hypergradient(n), total_gradient(levels, values, n)) < 1e-10


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("nested", ["projected", "partial"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_left_out_is_what_was_asked_to_be(name, nested, method):
    want = shortened_gradient(*solved(name), "x", nested)
    assert relative(want, expected(name)) > 1e-3, "what is left out carries nothing"
    assert relative(found(name, SOLVERS[method], nested=nested), want) < 1e-10


def gaps(errors: dict[int, float], rate: float) -> dict[int, float]:
    """K -> by how much the error fell from K to 2 K terms, over `rate` to the power K."""
    pairs = ((k, e, errors.get(2 * k)) for k, e in errors.items())
    # Below 1e-12 an error is rounding.
    return {k: f / e / rate**k for k, e, f in pairs if f is not None and f > 1e-12}


def series(name: str, level: str, terms: int) -> tuple[mlo.Neumann, float]:
    """The series with the best step for the Hessian of `level`, and the rate of its rest."""
    spectrum = spectra(name)[level]
    alpha = 2.0 / float(spectrum.min() + spectrum.max())
    return mlo.Neumann(terms=terms, alpha=alpha), float((1 - alpha * spectrum).abs().max())


@pytest.mark.parametrize("name", [n for n in PROGRAMS if PROGRAMS[n].depth == 2])
def test_a_series_at_every_level_converges_at_the_rate_of_the_slowest(name):
    """The rest of K terms is rate^K of each solve, and so of their sums and products."""
    rate = max(series(name, n, 1)[1] for n in spectra(name))
    errors = {}
    for terms in (4, 8, 16, 32):
        method = {n: series(name, n, terms)[0] for n in spectra(name)}
        errors[terms] = relative(found(name, method), expected(name))
    # Several eigenvalues share in an error, and levels in a rate: a factor, not a power.
    assert all(0.3 < gap < 3 for gap in gaps(errors, rate).values())
    assert errors[32] < 10 * rate**32
    assert len(gaps(errors, rate)) > 1


@pytest.mark.parametrize("level", ["z", "y", "v"])
def test_a_series_at_one_of_four_levels_converges_at_its_own_rate(level):
    name, rate, errors = "four levels", series("four levels", level, 1)[1], {}
    for terms in (4, 8, 16, 32):
        method = {**dict.fromkeys("zyv", mlo.Dense()), level: series(name, level, terms)[0]}
        errors[terms] = relative(found(name, method), expected(name))
    assert all(0.3 < gap < 3 for gap in gaps(errors, rate).values())
    assert errors[32] < 1e-9
    assert len(gaps(errors, rate)) > 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_conjugate_gradients_err_as_their_tolerance_allows(name):
    for tolerance in (1e-1, 1e-2, 1e-4, 1e-8):
        method = mlo.ConjugateGradient(iterations=10, tolerance=tolerance)
        # A rest becomes an error by way of H^{-1}: condition numbers are below 10 here.
        assert relative(found(name, method), expected(name)) < 10 * tolerance


@pytest.mark.parametrize(("name", "largest"), [("three levels", 4), ("four levels", 3)])
def test_conjugate_gradients_fall_until_as_many_iterations_as_parameters(name, largest):
    errors = [
        relative(found(name, mlo.ConjugateGradient(iterations=i, tolerance=0)), expected(name))
        for i in range(1, largest + 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] > 1e-3
    assert errors[-1] < 1e-10
