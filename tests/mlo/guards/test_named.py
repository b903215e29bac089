"""Wherever something is not finite, it is named there, and nothing of that move is applied."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlo
from mlo.errors import NonfiniteError

from .planted import ADJOINT, GRADIENT, KINDS, LOSS, SHAPES, STEP, codes, drawn, engine, live, same

SEARCH = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def cases(draw):
    """A shape, options, and where what is planted; a second derivative only where one is taken."""
    shape = draw(st.sampled_from(list(SHAPES)))
    kind = draw(st.sampled_from(list(KINDS)))
    names = list(SHAPES[shape])
    name = draw(st.sampled_from(names[:-1] if kind == ADJOINT else names))
    options = {
        "lookahead": shape != "circle" and draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32])),
        "retain": draw(st.booleans()),
    }
    if shape in ("two levels",):
        options["method"] = draw(st.sampled_from([None, mlo.OneStep(), mlo.Dense(damping=0.1)]))
    return shape, name, kind, draw(st.integers(0, 2)), options


def expected(shape, name, kind):
    """Who is named: those that answer together are named together."""
    if shape == "circle" and kind == ADJOINT:
        return "a and b"
    return name


def steps(made, ticks, on_move=None):
    for _ in range(ticks):
        made.step(on_move)


def guards(**given):
    return mlo.Guards(probe=False, **given)


def caught(made, ticks):
    """Make ticks until one raises: the error, and the moves that the tick had made by then."""
    watcher = Watcher()
    with pytest.raises(NonfiniteError) as raised:
        made.run(ticks, callbacks=[watcher])
    return raised.value, sum(move.tick == made.tick for move in watcher.moves)


class Watcher(mlo.Callback):
    def __init__(self):
        self.moves = []

    def on_move(self, record):
        self.moves.append(record)


@given(cases())
@SEARCH
def test_the_first_is_named_and_its_move_is_not_applied(case):
    shape, name, kind, at, options = case
    made = engine(shape, codes(shape, 4, at, name, kind), guards=guards(), **options)
    error, done = caught(made, 4)
    assert error.problem == expected(shape, name, kind), error
    assert KINDS[kind] in error.what
    assert error.what.startswith(f"tick {at}: ")
    assert made.tick == at
    twin = engine(shape, codes(shape, 4), guards=guards(), **options)
    steps(twin, at)
    seen = [live(twin)["problems"]]
    if done:
        twin.step(lambda move: seen.append(live(twin)["problems"]))
    assert same(seen[done], live(made)["problems"]) is True


@given(cases())
@SEARCH
def test_a_tick_that_is_skipped_leaves_everything_but_streams_and_random_states(case):
    shape, name, kind, at, options = case
    made = engine(
        shape, codes(shape, 4, at, name, kind), guards=guards(on_nonfinite="skip"), **options
    )
    steps(made, at)
    before = live(made)
    record = made.step()
    assert same(before, live(made)) is True
    assert record.moves == ()
    assert record.plain()["taken_back"] == record.taken_back
    assert f"'{expected(shape, name, kind)}'" in record.taken_back
    assert KINDS[kind] in record.taken_back
    assert record.taken_back.endswith("; the tick was taken back")
    assert made.tick == at + 1
    after = made.step()
    assert after.taken_back is None
    assert "taken_back" not in after.plain()
    assert all(m.loss.isfinite() for m in after.moves)


@given(cases(), st.sampled_from(["raise", "skip", "rollback"]))
@SEARCH
def test_flags_that_are_read_at_the_end_of_a_tick_lead_to_the_same(case, way):
    shape, name, kind, at, options = case
    found = []
    for deferred in (False, True):
        made = engine(
            shape,
            codes(shape, 4, at, name, kind),
            guards=guards(on_nonfinite=way, rollback_every=2),
            **options,
        )
        made._guard.deferred = deferred
        if way == "raise":
            error, _ = caught(made, 4)
            sentences = [error.what]
        else:
            sentences = [made.step().taken_back for _ in range(4)]
        incident = made.incident
        kept = (incident.what, incident.place, incident.state, incident.memory.states)
        found.append([live(made), drawn(), sentences, kept[:2], kept[2:]])
    assert same(*found) is True


@pytest.mark.parametrize("kind", [LOSS, GRADIENT, STEP])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_move_on_trial_is_named_as_one(kind, deferred):
    made = engine("two levels", codes("two levels", 2, 1, "a", kind), lookahead=True)
    made._guard.deferred = deferred
    error, done = caught(made, 2)
    assert error.problem == "a"
    assert done == (2 if deferred else 0)  # told before the flags were read
    assert error.what.endswith(", in a move on trial for problem 'b'")
    assert (error.incident.place.name, error.incident.place.update) == ("b", 0)


def test_the_message_counts_what_is_not_finite_and_says_where_and_what_to_do():
    made = engine("two levels", codes("two levels", 1, 0, "a", GRADIENT))
    error, _ = caught(made, 1)
    assert error.what == (
        "tick 0: the gradient of problem 'a' is not finite (0 NaN, 3 inf of 3 entries, in 'w')"
    )
    assert "mlo.replay" in str(error)
    assert "on_nonfinite='skip'" in str(error)
    made = engine("two levels", codes("two levels", 1, 0, "a", ADJOINT))
    error, _ = caught(made, 1)
    assert error.what.startswith(
        "tick 0: the adjoint of problem 'a' (Neumann) in the gradient of problem 'b' is not finite"
    )
    assert "of 3 entries, in 'b.w')" in error.what
