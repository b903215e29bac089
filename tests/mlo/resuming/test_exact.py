"""An engine that was saved and loaded goes on bit for bit as if nothing had happened."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mlo
from mlo.plain import differences

from .programs import METHODS, choices, engine

PROFILE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": (Phase.generate,),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")


def records(made):
    """Tick records as plain values, without the times that they took."""
    return [{**record.plain(), "seconds": 0} for record in made]


def disturbed():
    """Random states, and nothing else, are those of another world."""
    torch.manual_seed(12345)
    random.seed(12345)
    np.random.seed(12345)


def check(chosen, path, before, after):
    """Run `before` ticks, save, and compare what comes after in this engine and in a new one."""
    first = engine(chosen)
    for _ in range(before):
        first.step()
    first.save(path)
    expected = records([first.step() for _ in range(after)])
    expected_state = first.state_dict()
    query = first.hypergradient("lam")

    disturbed()
    second = engine(chosen)
    for _ in range(2):
        second.step()  # whatever it was before
    disturbed()
    second.load(path)
    assert second.tick == before
    found = records([second.step() for _ in range(after)])
    assert list(differences(expected, found)) == []
    assert list(differences(expected_state, second.state_dict())) == []
    assert list(differences(query, second.hypergradient("lam"))) == []


@settings(max_examples=15, **PROFILE)
@given(chosen=choices(), before=st.integers(0, 7), after=st.integers(1, 4))
def test_random_programs_go_on_exactly(chosen, before, after, tmp_path_factory):
    check(chosen, tmp_path_factory.mktemp("states") / "state.pt", before, after)


BASE = {
    "lookahead": False,
    "a": {"optimizer": "adam", "scheduler": "cosine", "repeat": 2, "accumulate": 1},
    "b": {"optimizer": "sgd", "scheduler": "steps", "repeat": 1, "accumulate": 2},
    "restart": None,
    "every": 2,
    "warmup": 1,
    "epochs": False,
    "project": False,
    "listed": True,
    "shuffled": True,
    "seed": 3,
}


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_goes_on_exactly(method, lookahead, tmp_path):
    check({**BASE, "method": method, "lookahead": lookahead}, tmp_path / "state.pt", 5, 3)


PARTS = {
    **dict.fromkeys(("tick", "counts", "streams", "random", "problems", "health"), "engine"),
    **dict.fromkeys(("moves", "states", "made"), "memory"),
}
"""Part of a state -> where it is."""


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_the_state_is_idle(part, tmp_path):
    """The comparison above would notice each part, were it not restored."""
    chosen = {**BASE, "method": "warm conjugate gradients"}
    if part == "moves":
        chosen = {**BASE, "method": "unrolled across moves"}
    if part == "made":
        chosen["restart"] = 2
    first = engine(chosen)
    for _ in range(2):
        first.step()
    first.save(tmp_path / "early.pt")
    early = mlo.read_checkpoint(tmp_path / "early.pt")["engine"]
    for _ in range(3):
        first.step()
    first.save(tmp_path / "late.pt")
    late = mlo.read_checkpoint(tmp_path / "late.pt")["engine"]
    expected = records([first.step() for _ in range(3)])
    second = engine(chosen)
    stale = {part: early[part]} if PARTS[part] == "engine" else {}
    if PARTS[part] == "memory":
        stale = {"memory": {**late["memory"], part: early["memory"][part]}}
    second.load_state_dict({**late, **stale})
    found = records([second.step() for _ in range(3)])
    if part == "health":
        expected, found = first.state_dict()["health"], second.state_dict()["health"]
    assert list(differences(expected, found))
