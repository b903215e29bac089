"""An incident makes its move again: the same numbers, in the same engine or in one built anew."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mlo
from mlo.errors import NonfiniteError
from mlo.incident import Incident, Mark, replay
from mlo.plain import copied

from .planted import (
    ADJOINT,
    FINE,
    KINDS,
    LOSS,
    SHAPES,
    STEP,
    codes,
    drawn,
    engine,
    live,
    same,
)

SEARCH = settings(max_examples=40, deadline=None)


def broken(made, deferred=False):
    made._guard.deferred = deferred
    with pytest.raises(NonfiniteError) as caught:
        made.run(4)
    return caught.value.incident


def values(found):
    return copied([found.loss, dict(found.gradient), dict(found.parameters)])


@given(
    st.sampled_from(list(SHAPES)),
    st.sampled_from(list(KINDS)),
    st.data(),
    st.booleans(),
)
@SEARCH
def test_a_replay_meets_the_same_value_in_an_engine_built_anew(shape, kind, data, deferred):
    names = list(SHAPES[shape])
    name = data.draw(st.sampled_from(names[:-1] if kind == ADJOINT else names))
    lookahead = shape != "circle" and data.draw(st.booleans())
    plan = codes(shape, 4, data.draw(st.integers(0, 2)), name, kind)
    made = engine(shape, plan, lookahead=lookahead)
    incident = broken(made, deferred)
    first = values(replay(made, incident))
    stood = live(made)["problems"]
    again = values(replay(made, incident))
    assert same(first, again) is True
    assert same(stood, live(made)["problems"]) is True
    torch.manual_seed(77)
    other = engine(shape, codes(shape, 4), lookahead=lookahead)
    for _ in range(3):
        other.step()
    assert same(first, values(replay(other, incident))) is True
    loss, gradient, parameters = first
    finite = {
        "loss": loss.isfinite().item(),
        "gradient": gradient["w"].isfinite().all().item(),
        "parameters": parameters["w"].isfinite().all().item(),
    }
    assert not finite["parameters"]
    if incident.place.name == name:
        assert (finite["loss"], finite["gradient"]) == (kind != LOSS, kind == STEP)
    else:  # on trial, or in a response
        assert not finite["gradient"]


@pytest.mark.parametrize("before", range(4))
def test_the_loss_that_was_seen_is_seen_again_with_the_same_random_numbers(before):
    """NumPy's old generator keeps every other normal number back."""
    seen = []

    def fit(net, batch):
        noise = torch.rand(()) + np.random.randn() + random.random()
        value = (net["w"] * noise).square().sum()
        if batch:
            value = value + (net["w"] - net["w"].detach()).sum().sqrt()
        seen.append(value.item())
        return value

    def sgd(params):
        return torch.optim.SGD(params, 0.1)

    np.random.seed(before)
    problem = mlo.Problem("net", params={"w": torch.ones(3)}, loss=fit, optimizer=sgd)
    data = [torch.tensor(0.0)] * before + [torch.tensor(1.0)]
    made = mlo.Engine([problem], {"batch": data}, dry_run=False)
    incident = broken(made)
    value = seen[-1]
    assert made.tick == before
    assert replay(made, incident).loss.item() == seen[-1] == value


@pytest.mark.filterwarnings("ignore:.*nomaly:UserWarning")
def test_anomaly_detection_shows_where_it_comes_from():
    incident = broken(engine("two levels", codes("two levels", 2, 1, "a", LOSS)))
    other = engine("two levels", codes("two levels", 2))
    with (
        torch.autograd.detect_anomaly(check_nan=True),
        pytest.raises(RuntimeError, match="MulBackward0' returned nan"),
    ):
        replay(other, incident)


def test_an_incident_can_be_saved_and_read(tmp_path):
    made = engine("chain", codes("chain", 3, 1, "b", ADJOINT))
    incident = broken(made)
    incident.save(tmp_path / "incident.pt")
    other = engine("chain", codes("chain", 3))
    read = Incident.load(tmp_path / "incident.pt", other)
    again = values(replay(other, tmp_path / "incident.pt"))
    assert same(values(replay(made, incident)), again) is True
    assert (read.tick, read.problem, read.what) == (1, "b", incident.what)
    assert [int(b) for b in read.batches["codes_b"]] == [ADJOINT]
    assert [int(b) for b in read.batches["codes_a"]] == [FINE]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "draw",
    [
        lambda: None,
        lambda: (torch.rand(3), random.random()),
        lambda: np.random.rand(700),
        lambda: (np.random.rand(), np.random.randn(2)),
        lambda: np.random.seed(3),
    ],
)
def test_a_mark_is_the_random_state_of_its_time(draw, whole):
    for before in range(3):
        np.random.seed(before)
        np.random.rand(before * 311)
        stood = drawn()
        mark = Mark((), whole=whole)
        draw()
        after = drawn()
        assert mark.numpy_drew == (stood[2:4] != after[2:4])
        state = mark.state()
        assert drawn() == after
        state.restore()
        assert drawn() == stood


@pytest.mark.filterwarnings("ignore:get_state and legacy:RuntimeWarning")
def test_a_mark_of_another_generator_is_a_whole_state():
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        mark, first = Mark((), whole=False), np.random.rand()
        mark.state().restore()
        assert np.random.rand() == first
    finally:
        np.random.set_bit_generator(usual)
