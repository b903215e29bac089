"""Random programs, staged and nested, against the written-out system of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mlo

from ..oracles import Level, Values, engine_of, flat, stacked_answer, starts
from ..programs import KINDS, program
from .oracles import (
    Stacked,
    balanced,
    nesting,
    responders,
    total_gradient,
)
from .shortened import shortened_gradient

METHODS = {
    "dense": mlo.Dense(),
    # More iterations than any of these problems has parameters.
    "conjugate gradients": mlo.ConjugateGradient(iterations=30, tolerance=1e-13),
}
NAMES = ("p0", "p1", "p2", "p3", "p4", "top")
PROFILE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    # Without shrinking, which would solve hundreds of programs where one fails.
    "phases": (Phase.generate,),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


def weakened(level: Level, strength: float) -> Level:
    """The same problem with all that it reads of others made smaller."""

    def loss(own: Mapping[str, Tensor], *read: Mapping[str, Tensor]) -> Tensor:
        return level.loss(own, *({k: strength * t for k, t in r.items()} for r in read))

    return Level(level.name, loss, level.start, level.constant, level.reads)


@st.composite
def staged_tables(draw):
    """Up to 30 problems; each reads some of those before it in a random order, not of levels."""
    count = draw(st.integers(8, 29))
    names = [f"p{i}" for i in range(count)]
    order = draw(st.permutations(names))
    reads = {}
    for name in names:
        earlier = order[: order.index(name)]
        # Few of many: with every other one the numbers would grow from problem to problem.
        chosen = (
            draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
        )
        reads[name] = (*chosen, *(("top",) if draw(st.booleans()) or not chosen else ()))
    used = {r for read in reads.values() for r in read}
    reads["top"] = tuple(n for n in names if n not in used)
    return reads


@settings(max_examples=15, **PROFILE)
@given(reads=staged_tables(), seed=st.integers(0, 99), method=st.sampled_from(sorted(METHODS)))
def test_random_staged_programs_of_thirty_problems_agree_with_the_stacked_system(
    reads, seed, method
):
    draw = torch.Generator().manual_seed(seed)
    kinds = [KINDS[int(i)] for i in torch.randint(len(KINDS), (len(reads),), generator=draw)]
    levels = [weakened(level, 0.5) for level in program(reads, kinds, seed=seed)]
    values = starts(levels)
    engine = engine_of(levels, values, METHODS[method])
    assert not any(engine.graph.anticipates(level.name) for level in levels)
    # Every problem reads the top one or one that does, and is read at some remove.
    assert len(engine.graph.scope("top")) == len(levels) - 1
    assert responders(levels, "top") == [n for n in values if n != "top"]
    found, expected = engine.hypergradient("top"), stacked_answer(levels, values, "top")
    # Rounding of thirty solves on a path, with condition numbers up to 100 each.
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-8, atol=1e-8)


@st.composite
def nested_tables(draw):
    """Up to 6 problems, in which each of a spine and its next above read each other.

    The others, and what else anybody reads, are left to chance, upwards and downwards.
    """
    names = NAMES[-draw(st.integers(3, len(NAMES))) :]
    length = draw(st.integers(2, 3)) if len(names) > 3 else 2
    below = draw(st.permutations(names[:-1]))[:length]
    spine = [n for n in names if n in below or n == "top"]
    pairs = list(zip(spine[1:], spine[:-1], strict=True))
    often = st.integers(0, 4).map(lambda i: i == 0)
    reads, constant = {}, {}
    for name in names:
        kept = [b for a, b in pairs if a == name] + [a for a, b in pairs if b == name]
        more = [n for n in names if n not in (name, *kept) and draw(often)]
        if not kept and not more:  # nobody may stand alone
            more = ["top"]
        reads[name] = (*kept, *more)
        constant[name] = tuple(n for n in more if n < name and draw(often))
    return reads, constant


nested_programs = st.tuples(
    nested_tables(),
    st.lists(st.sampled_from(KINDS), min_size=len(NAMES), max_size=len(NAMES)),
    st.integers(0, 99),
)


class Trials:
    """Programs that can be solved, of those that were drawn."""

    def __init__(self) -> None:
        self.drawn, self.deep = 0, Counter()

    def solved(self, drawn: tuple) -> tuple[list[Level], Values]:
        (reads, constant), kinds, seed = drawn
        self.drawn += 1
        levels = [
            weakened(level, 0.5) for level in program(reads, kinds, constant=constant, seed=seed)
        ]
        depth = nesting(levels, "top")
        assume(depth <= 3)
        try:
            values = balanced(levels, starts(levels), "top")
        except (AssertionError, torch.linalg.LinAlgError):
            assume(False)
        at = Stacked(levels, values)
        curvatures = [torch.linalg.eigvalsh(at.curvature(n)) for n in responders(levels, "top")]
        assume(all(c.min() > 0.2 and c.max() < 20 for c in curvatures))
        self.deep[depth] += 1
        return levels, values

    def check(self) -> None:
        """Most were used, and of both depths."""
        assert self.deep.total() > 0.7 * self.drawn
        assert min(self.deep[2], self.deep[3]) > 0.15 * self.drawn


def test_random_nested_programs_agree_with_the_written_out_system():
    trials = Trials()

    @settings(max_examples=30, **PROFILE)
    @given(drawn=nested_programs, method=st.sampled_from(sorted(METHODS)))
    def agree(drawn, method):
        levels, values = trials.solved(drawn)
        engine = engine_of(levels, values, METHODS[method])
        middle = [n for n in responders(levels, "top") if responders(levels, n)]
        assert middle
        assert [n for n in values if engine.graph.anticipates(n)] == middle
        found, expected = engine.hypergradient("top"), total_gradient(levels, values, "top")
        # Rounding only; CG leaves 1e-13 of a residual and condition numbers are below 100.
        torch.testing.assert_close(flat(found), flat(expected), rtol=1e-9, atol=1e-9)

    agree()
    trials.check()


@pytest.mark.parametrize("nested", ["projected", "partial"])
def test_random_nested_programs_leave_out_what_is_written_out(nested):
    trials = Trials()

    @settings(max_examples=20, **PROFILE)
    @given(drawn=nested_programs, method=st.sampled_from(sorted(METHODS)))
    def agree(drawn, method):
        levels, values = trials.solved(drawn)
        engine = engine_of(levels, values, METHODS[method], nested=nested)
        found = engine.hypergradient("top")
        expected = shortened_gradient(levels, values, "top", nested)
        torch.testing.assert_close(flat(found), flat(expected), rtol=1e-9, atol=1e-9)

    agree()
    trials.check()
