"""Writers that are killed: whatever moment it is, the folder has a whole newest checkpoint."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from mlo import files
from mlo.checkpoint_folder import CheckpointFolder

from . import checkpointed
from .checkpointed import name, names, state

folder = checkpointed.folder


def write(folder: CheckpointFolder, *ticks: int) -> None:
    for tick in ticks:
        folder.write(state(tick), tick)


def snapshots(monkeypatch, folder: CheckpointFolder, target: pathlib.Path):
    """Copy the folder before and after every change of it, as a kill would leave it."""
    counter = itertools.count()

    def copy():
        shutil.copytree(folder.path, target / str(next(counter)))

    for owner, change in ((os, "replace"), (os, "fsync"), (pathlib.Path, "unlink")):
        real = getattr(owner, change)

        def noted(*args, real=real, **settings):
            copy()
            real(*args, **settings)
            copy()

        monkeypatch.setattr(owner, change, noted)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("tick", [15, 20, 25, 30, 35])
def test_killed_at_any_step_the_folder_holds_the_state_before_or_the_new_one(
    folder, tmp_path, monkeypatch, keep, tick
):
    folder.keep = 3
    write(folder, 10, 20, 30)
    folder.keep = keep
    (folder.path / f".{name(5)}.abcd1234.part").write_bytes(b"")
    with monkeypatch.context() as patch:
        snapshots(patch, folder, tmp_path / "killed")
        folder.write(state(tick, "again"), tick)
    seen = []
    for number in range(len(os.listdir(tmp_path / "killed"))):
        left = CheckpointFolder(tmp_path / "killed" / str(number), keep=keep)
        found = left.newest()
        seen.append((found.tick, found.state["run"]))
        left.write(state(tick, "third"), tick)  # and the next writer puts all in order
        assert left.newest().state["run"] == "third"
        assert left.newest().damaged == ()
        assert len(names(left)) <= keep + 1
    order = [(30, "first"), (tick, "again")]
    assert seen == sorted(seen, key=order.index)
    assert set(seen) == set(order)


def test_names_and_the_removal_of_later_ones_last_through_a_power_cut(folder, monkeypatch):
    seen, sync, unlink = [], files.sync_folder, pathlib.Path.unlink
    monkeypatch.setattr(files, "sync_folder", lambda path: (seen.append(path), sync(path)))
    write(folder, 10, 20, 30)
    assert seen[:2] == [folder.path.parent, folder.path.parent.parent]
    seen.clear()

    def noted(path, missing_ok=False):
        seen.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", noted)
    write(folder, 15)
    last = max(i for i, path in enumerate(seen) if path == folder.path)
    assert {folder.path / name(20), folder.path / name(30)} <= set(seen[:last])


KILLED = """
import itertools, os, pathlib, random, signal, sys, time, torch
from mlo.checkpoint_folder import CheckpointFolder

def written_by_child(pipe):
    os.dup2(pipe, 1)
    folder = CheckpointFolder(sys.argv[1])
    found = folder.newest()
    os.write(1, b"ready\\n")
    for tick in itertools.count(found.tick + 1 if found else 0):
        folder.write({"w": torch.full((300_000,), float(tick))}, tick)
        os.write(1, b"%d\\n" % tick)

draw, last = random.Random(2), -1
for _ in range(20):
    pipe = os.pipe()
    child = os.fork()  # it has torch already
    if child == 0:
        written_by_child(pipe[1])
    os.close(pipe[1])
    with os.fdopen(pipe[0]) as lines:
        assert lines.readline() == "ready\\n"
        first = [lines.readline() for _ in range(draw.randrange(4))]
        time.sleep(draw.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = [last, *map(int, first), *map(int, lines.read().split())][-1]
    found = CheckpointFolder(sys.argv[1]).newest()
    last = found.tick if found else -1
    assert told <= last <= told + 1, (told, last)  # written, and killed before it said so
    assert not found or torch.equal(found.state["w"], torch.full((300_000,), float(last)))
    print(last, len(list(pathlib.Path(sys.argv[1]).glob(".*.part"))))
"""


def test_twenty_kills_of_a_writer_leave_a_whole_newest(folder):
    found = subprocess.run(
        [sys.executable, "-c", KILLED, folder.path], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    lines = [list(map(int, line.split())) for line in found.stdout.splitlines()]
    assert len(lines) == 20
    assert lines[-1][0] > 10
    assert any(left for _, left in lines), "no kill came while a file was being written"
    write(folder, lines[-1][0] + 1)
    assert len(names(folder)) == 3
