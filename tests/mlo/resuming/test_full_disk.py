"""A disk that fills up ends a run with its last state intact; once there is room it goes on."""

from __future__ import annotations

import contextlib

import pytest
import torch

import mlo
from mlo.errors import MloError
from mlo.plain import differences

from .test_runs import run

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def files_of_at_most(size):
    """What the system then refuses is refused as on a full disk: in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Fill(mlo.Callback):
    """From a tick on there is no room, until the run has ended."""

    def __init__(self, tick, size):
        self.tick, self.size, self.room = tick, size, contextlib.ExitStack()

    def on_tick(self, record):
        if record.tick == self.tick:
            self.room.enter_context(files_of_at_most(self.size))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    return run(tmp_path_factory.mktemp("undisturbed"), resume=False)


@pytest.mark.parametrize("size", [0, 1, 100, 3_000, 20_000, 60_000])
def test_a_run_on_a_full_disk_ends_with_its_last_state_and_goes_on(tmp_path, undisturbed, size):
    fill = Fill(5, size)
    with fill.room, pytest.raises(MloError, match=r"cannot write .*(room|File too large)"):
        run(tmp_path, fill)
    names = {p.name for p in (tmp_path / "states").iterdir()}
    assert names == {"manifest.json", "tick-0000000003.pt", "tick-0000000004.pt"}
    result, records, states = run(tmp_path)
    assert result.ticks == 9
    assert records == undisturbed[1]
    assert list(differences(undisturbed[2], states)) == []
