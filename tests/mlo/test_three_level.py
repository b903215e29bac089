"""Staged programs of three and more levels against the stacked system and the re-solved program."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlo

from .oracles import (
    Level,
    below,
    engine_of,
    flat,
    relative,
    resolved_answer,
    solved,
    stacked_answer,
    starts,
)
from .programs import KINDS, program

# Who reads whom besides itself, lowest first; every problem but the roots is staged.
TABLES = {
    "chain": {"a": ("top",), "b": ("a",), "top": ("b",)},
    "chain whose lowest problem comes last": {"a": ("b",), "b": ("c",), "c": ("top",), "top": "a"},
    "learning from mistakes": {
        "learner": ("upper",),
        "relearner": ("learner", "upper"),
        "upper": ("relearner",),
    },
    "learner and relearner judged": {
        "learner": ("upper",),
        "relearner": ("learner", "upper"),
        "upper": ("relearner", "learner"),
    },
    "diamond": {"a": ("top",), "b": ("a",), "c": ("a",), "d": ("b", "c"), "top": ("d",)},
    "diamonds that share an edge": {
        "a": ("top",),
        "b": ("a", "top"),
        "c": ("a", "b"),
        "d": ("b", "c", "top"),
        "top": ("d", "a"),
    },
    "a lower problem reads a higher one": {
        "low": ("high", "top"),
        "high": ("top",),
        "top": ("low",),
    },
    "a problem that answers to nobody": {
        "free": (),
        "a": ("free", "top"),
        "b": ("a", "free"),
        "top": ("b", "free"),
    },
    "two upper problems": {
        "one": ("two", "first"),
        "two": ("second",),
        "second": ("two",),
        "first": ("one", "two"),
    },
}
METHODS = {
    "dense": mlo.Dense(),
    # More iterations than any of these problems has parameters.
    "conjugate gradients": mlo.ConjugateGradient(iterations=30, tolerance=1e-13),
}
# Upper problems that do not read themselves: all of their gradient is a response.
JUDGES = {"chain": "top", "learning from mistakes": "upper"}


def built(table: str, kinds: tuple[str, ...], **settings: object) -> list[Level]:
    return program(TABLES[table], kinds, judges=(JUDGES.get(table),), **settings)


def at_solution(levels: list[Level], name: str) -> dict:
    return solved(levels, starts(levels), below(levels, name))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kinds", [*((k,) for k in KINDS), KINDS], ids="-".join)
@pytest.mark.parametrize("table", TABLES)
def test_hypergradient_is_that_of_the_resolved_program(table, kinds, method):
    levels = built(table, kinds)
    name = levels[-1].name
    values = at_solution(levels, name)
    found = engine_of(levels, values, METHODS[method]).hypergradient(name)
    # Rounding of the two dense solves only.
    assert relative(found, stacked_answer(levels, values, name)) < 1e-10
    # Differences and re-solves are good to about 1e-9 (see `central`).
    assert relative(found, resolved_answer(levels, values, name)) < 1e-8


@pytest.mark.parametrize("name", ["first", "second"])
def test_each_of_two_upper_problems_has_its_own_hypergradient(name):
    levels = built("two upper problems", ("trigonometric",))
    values = at_solution(levels, "second")
    values = solved(levels, values, ["one", "two"])
    found = engine_of(levels, values, mlo.Dense()).hypergradient(name)
    lower = [level for level in levels if level.name in ("one", "two", name)]
    assert relative(found, resolved_answer(lower, values, name)) < 1e-8


@pytest.mark.parametrize("table", TABLES)
def test_a_problem_without_a_scope_has_its_plain_gradient(table):
    levels = built(table, KINDS)
    engine = engine_of(levels, starts(levels), mlo.Dense())
    plain = [level for level in levels if not engine.graph.scope(level.name)]
    assert plain
    for level in plain:
        own = {k: t.clone().requires_grad_() for k, t in level.start.items()}
        loss = level.at({**starts(levels), level.name: own})
        expected = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
        assert relative(engine.hypergradient(level.name), expected) < 1e-14


CUTS = {
    "a diamond's arm": ("diamond", {"d": ("b",)}),
    "the learner, for the relearner": ("learner and relearner judged", {"relearner": ("learner",)}),
    "the learner, for the upper problem": ("learner and relearner judged", {"upper": ("learner",)}),
    "one edge of many": ("diamonds that share an edge", {"d": ("c",), "b": ("a",)}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_constant_cuts_one_route(cut, method):
    table, constant = CUTS[cut]
    levels = built(table, KINDS, constant=constant)
    name = levels[-1].name
    values = at_solution(levels, name)
    found = engine_of(levels, values, METHODS[method]).hypergradient(name)
    assert relative(found, stacked_answer(levels, values, name)) < 1e-10
    whole = stacked_answer(built(table, KINDS), values, name)
    assert relative(found, whole) > 1e-3, "the route that was cut carries nothing"


@pytest.mark.parametrize("table", ["diamond", "learner and relearner judged"])
def test_direct_and_response_part_add_up(table):
    levels = built(table, ("quartic",))
    name = levels[-1].name
    values = at_solution(levels, name)
    own = {k: t.clone().requires_grad_() for k, t in values[name].items()}
    loss = levels[-1].at({**values, name: own})
    direct = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
    assert relative(engine_of(levels, values, mlo.Direct()).hypergradient(name), direct) < 1e-14
    found = engine_of(levels, values, mlo.Dense()).hypergradient(name)
    expected = stacked_answer(levels, values, name)
    response = {k: expected[k] - direct[k] for k in direct}
    assert relative({k: found[k] - direct[k] for k in direct}, response) < 1e-10


@st.composite
def staged_programs(draw):
    """Up to 7 problems that read along a random order, which is not that of their levels."""
    count = draw(st.integers(1, 7))
    names = [f"p{i}" for i in range(count)]
    order = draw(st.permutations(names))
    reads, constant = {}, {}
    for i, name in enumerate(names):
        earlier = order[: order.index(name)]
        chosen = [other for other in earlier if draw(st.booleans())]
        cut = [o for o in chosen if names.index(o) < i and draw(st.integers(0, 4)) == 0]
        reads[name] = (*chosen, *(("top",) if draw(st.booleans()) else ()))
        constant[name] = tuple(cut)
    # The top reads the last in that order, so that nothing stands alone, and what else it likes.
    others = [n for n in order if draw(st.booleans()) or not _in_use(n, reads)]
    reads["top"] = tuple(others or order[-1:])
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=count + 1, max_size=count + 1))
    return program(reads, kinds, constant=constant, seed=draw(st.integers(0, 99)))


def _in_use(name: str, reads: dict) -> bool:
    return bool(reads[name]) or any(name in others for others in reads.values())


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(levels=staged_programs(), method=st.sampled_from(sorted(METHODS)))
def test_random_staged_programs_agree_with_the_stacked_system(levels, method):
    # Away from the solutions as well: the formula is the same at every point.
    values = starts(levels)
    engine = engine_of(levels, values, METHODS[method])
    assert not any(engine.graph.anticipates(level.name) for level in levels)
    found, expected = engine.hypergradient("top"), stacked_answer(levels, values, "top")
    # Quartic terms away from the solution bend conjugate gradients: 1e-13 on the residual, times
    # condition numbers up to 100 at every level.
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-9, atol=1e-9)
