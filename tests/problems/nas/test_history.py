"""The history of a search: what was read when, and the same after it was cut off."""

from __future__ import annotations

import io

import pytest
import rich.console
import torch

import mlo
from mlo.carry import Carry
from mlo.errors import ConfigurationError
from problems.nas.architecture import Architecture
from problems.nas.history import History
from problems.nas.pictures import genotype_line
from problems.nas.space import CellSpace, MacroSpace

TICKS = 7
SPACES = {
    "cells": CellSpace.darts(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3")),
    "chain": MacroSpace.chain(3, ("skip_connect", "conv_3x3", "conv_1x1")),
}


def search(space, every):
    """A program that moves the architecture towards noise, and the history of it."""
    torch.manual_seed(0)
    architecture = Architecture(space)

    def loss(search):
        mixing = search()
        return sum((w * torch.randn_like(w)).sum() for w in mixing.values())

    problem = mlo.Problem(
        "search", module=architecture, loss=loss, optimizer=lambda p: torch.optim.Adam(p, 0.5)
    )
    history = History(architecture, architecture.genotype, every)
    return mlo.Engine([problem], guards=mlo.Guards()), architecture, history


class Looks(mlo.Callback):
    """Keeps the weights and the genotype after every tick, by itself."""

    def __init__(self, architecture):
        self.architecture = architecture
        self.seen = []

    def look(self):
        mixing = {part: w.detach().clone() for part, w in self.architecture().items()}
        self.seen.append((mixing, self.architecture.genotype()))

    def on_start(self, record):
        self.look()

    def on_tick(self, record):
        self.look()


class Cut(mlo.Callback):
    def __init__(self, tick):
        self.tick = tick

    def on_tick(self, record):
        if record.tick + 1 == self.tick:
            raise KeyboardInterrupt


def same(first, second):
    assert first.keys() == second.keys()
    assert first["mixing"].keys() == second["mixing"].keys()
    for part in first["mixing"]:
        assert torch.equal(first["mixing"][part], second["mixing"][part])
    for name in ("ticks", "skips"):
        assert first[name].dtype == second[name].dtype == torch.int64
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize(
    ("every", "ticks"), [(1, range(8)), (2, [0, 2, 4, 6, 7]), (7, [0, 7]), (50, [0, 7])]
)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_readings_are_those_of_their_ticks_and_of_the_two_ends(space, every, ticks):
    engine, architecture, history = search(space, every)
    looks = Looks(architecture)
    engine.run(TICKS, callbacks=[history, looks])
    values = history.values()
    assert values["ticks"].tolist() == list(ticks)
    assert len({str(genotype) for _, genotype in looks.seen}) > 1, "the search is no standstill"
    for row, tick in enumerate(ticks):
        mixing, genotype = looks.seen[tick]
        assert int(values["skips"][row]) == genotype.skips
        assert values["mixing"].keys() == mixing.keys()
        for part, weights in mixing.items():
            assert torch.equal(values["mixing"][part][row], weights)
    assert history.line() == genotype_line(looks.seen[-1][1])
    same(Carry(values).plain(), values)


@pytest.mark.parametrize(("every", "saved"), [(1, 2), (3, 1)])
@pytest.mark.parametrize("cut", range(1, TICKS + 1))
def test_a_search_that_was_cut_off_has_the_same_history(tmp_path, cut, saved, every):
    engine, _, whole = search(SPACES["cells"], every)
    engine.run(TICKS, callbacks=[whole])
    engine, _, history = search(SPACES["cells"], every)
    states = mlo.Checkpoints(tmp_path, every=saved)
    with pytest.raises(KeyboardInterrupt):
        engine.run(TICKS, callbacks=[history, Cut(cut)], checkpoints=states)
    engine, _, resumed = search(SPACES["cells"], every)
    engine.run(TICKS, callbacks=[resumed], checkpoints=states, resume=True)
    same(resumed.values(), whole.values())


def test_a_run_that_is_over_adds_nothing_when_it_is_resumed(tmp_path):
    states = mlo.Checkpoints(tmp_path, every=2)
    engine, _, whole = search(SPACES["chain"], 3)
    engine.run(TICKS, callbacks=[whole], checkpoints=states)
    engine, _, again = search(SPACES["chain"], 3)
    engine.run(TICKS, callbacks=[again], checkpoints=states, resume=True)
    same(again.values(), whole.values())


def test_another_run_of_the_same_object_begins_anew():
    engine, architecture, history = search(SPACES["chain"], 5)
    for ticks in (3, 4):
        start = architecture()["layers"].detach().clone()
        engine.run(ticks, callbacks=[history])
        values = history.values()
        assert values["ticks"].tolist() == [0, ticks]
        assert torch.equal(values["mixing"]["layers"][0], start)


def test_readings_stay_what_they_were_when_the_search_goes_on_in_place():
    weights = torch.zeros(3, 3)
    _, architecture, _ = search(SPACES["chain"], 1)
    history = History(lambda: {"layers": weights}, architecture.genotype, 1)
    engine, _, _ = search(SPACES["chain"], 1)

    class Change(mlo.Callback):
        def on_tick(self, record):
            weights.add_(1)

    engine.run(2, callbacks=[Change(), history])
    assert history.values()["mixing"]["layers"][:, 0, 0].tolist() == [0, 1, 2]


def test_a_search_that_fails_keeps_its_own_error_and_says_that_there_is_no_genotype():
    engine, architecture, history = search(SPACES["chain"], 5)

    class Break(mlo.Callback):
        def on_tick(self, record):
            with torch.no_grad():
                architecture.alpha_layers.fill_(torch.nan)
            raise ZeroDivisionError

    screen = rich.console.Console(file=io.StringIO(), width=80)
    progress = mlo.callbacks.Console("search", console=screen, beside=[history])
    with pytest.raises(ZeroDivisionError):
        engine.run(3, callbacks=[progress, history, Break()])
    assert history.values()["ticks"].tolist() == [0]
    assert "no genotype: mixing weights" in " ".join(screen.file.getvalue().split())


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None])
def test_readings_come_after_whole_numbers_of_ticks(every):
    with pytest.raises(ConfigurationError, match=r"History\(every=\.\.\.\).*at least 1"):
        search(SPACES["chain"], every)
