"""Engines on resident streams with augmentation: saved and resumed bit for bit."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo
from mlo.errors import CheckpointError, ResumeWarning
from mlo.plain import copied

from .small_streams import same, stream


def program(*, repeat=1, drop_last=True, shared=False):
    """Weights of examples above a net; both read augmented batches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).float()

    def fit(net, weights, train):
        x, y, index = train
        losses = F.cross_entropy(net(x), y, reduction="none")
        return (weights["logits"][index].sigmoid() * losses).mean()

    def judge(weights, net, valid):
        x, y, _ = valid
        return F.cross_entropy(net(x), y)

    lower = mlo.Problem(
        "net", module=net, loss=fit, optimizer=torch.optim.Adam(net.parameters()), repeat=repeat
    )
    upper = mlo.Problem(
        "weights",
        params={"logits": torch.zeros(13, dtype=torch.float32)},
        loss=judge,
        optimizer=lambda params: torch.optim.SGD(params, 1.0, momentum=0.9),
        hypergradient=mlo.OneStep(),
        every=2,
    )
    data = {"train": stream(drop_last=drop_last), "valid": stream(9, seed=8, batch_size=2)}
    if shared:
        data["valid"].generator = data["train"].generator
    return mlo.Engine([lower, upper], data)


def rows(records):
    return [{**record.plain(), "seconds": 0} for record in records]


PROGRAMS = {
    "dropped": {},
    "kept": {"drop_last": False},
    "repeated": {"repeat": 2},
    "shared": {"shared": True},
}


@pytest.mark.parametrize("chosen", PROGRAMS)
def test_an_engine_saved_at_any_tick_goes_on_bit_for_bit(chosen, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResumeWarning)
        whole = program(**PROGRAMS[chosen])
        expected = []
        for tick in range(9):
            whole.save(tmp_path / f"{tick}.pt")
            expected += rows([whole.step()])
        end = copied(whole.state_dict())
        for tick in range(9):
            torch.manual_seed(tick)
            again = program(**PROGRAMS[chosen])
            for _ in range(tick % 3):
                again.step()  # whatever it was before
            again.load(tmp_path / f"{tick}.pt")
            assert same(rows([again.step() for _ in range(tick, 9)]), expected[tick:])
            assert same(again.state_dict(), end)


def test_the_losses_of_a_program_depend_on_the_augmentation():
    whole, other = program(), program()
    other._streams["train"].source.generator.manual_seed(99)
    assert not same(rows(whole.run(3).records), rows(other.run(3).records))


class PowerCut(mlo.Callback):
    def __init__(self, tick):
        self.tick = tick

    def on_tick(self, record):
        if record.tick == self.tick:
            raise OSError("the power is gone")


@pytest.mark.parametrize("cut", [0, 3, 5, 6])
def test_a_run_that_is_cut_off_is_resumed_bit_for_bit(cut, tmp_path):
    whole = program()
    expected = rows(whole.run(10, checkpoints=mlo.Checkpoints(tmp_path / "whole")).records)
    checkpoints = mlo.Checkpoints(tmp_path / "cut", every=2)
    with pytest.raises(OSError, match="power"):
        program().run(10, callbacks=[PowerCut(cut)], checkpoints=checkpoints)
    again = program()
    found = rows(again.run(10, checkpoints=checkpoints, resume=True).records)
    assert same(found, expected[-len(found) :])
    assert len(found) == 10 - cut // 2 * 2
    assert same(again.state_dict(), whole.state_dict())


def test_an_engine_refuses_a_state_of_other_data_and_goes_on_as_before():
    whole, other = program(), program()
    state = copied(whole.state_dict())
    source = other._streams["train"].source
    source.y = source.y.flip(0)
    with pytest.raises(CheckpointError, match="not what they were"):
        other.load_state_dict(state)
    assert other.step().tick == 0
