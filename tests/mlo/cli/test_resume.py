"""`mlo run --resume`: a run that was cut off goes on to the same end as one that was not."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import torch

from mlo.cli import main

from ..offered import CHAIN, install
from .called import environment, joined, process

# The second stage draws, so that a wrong random state would show, and can be stopped.
WATCHED = (
    CHAIN.replace('carry["x"].clone()', 'carry["x"] + torch.randn(())').replace(
        'return Setup(engine, {"x": (distance, 1)}, lambda: {"y": module["x"]})',
        'return Setup(engine, {"x": (distance, 1)}, lambda: {"y": module["x"]}, [Stopper()])',
    )
    + """
    import os, pathlib, time

    class Stopper:
        def on_tick(self, record):
            if record.tick != 1:
                return
            if os.environ.get("MLO_TEST_STOP") == "raise":
                raise mlo.errors.DataError("stopped")
            if os.environ.get("MLO_TEST_STOP") == "wait":
                pathlib.Path("waiting").touch()
                time.sleep(100)
"""
)
RUN = ["run", "chain", "--quiet", "--seeds", "2"]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    assert WATCHED.count("Stopper()") == WATCHED.count("randn") == 1
    entries = "[mlo.recipes]\nchain=mlo_cli_watched:recipe"
    site = install(tmp_path, monkeypatch, "mlo_cli_watched", WATCHED, entries)
    monkeypatch.chdir(tmp_path)
    return site


def files(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with its time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stop(monkeypatch, capsys, *more: str) -> None:
    monkeypatch.setenv("MLO_TEST_STOP", "raise")
    assert main([*RUN, "--out", "cut", *more]) == 1
    assert capsys.readouterr().err == "mlo: stopped\n"
    monkeypatch.delenv("MLO_TEST_STOP")


def assert_same_end(cut: pathlib.Path, whole: pathlib.Path) -> None:
    for name in ("results.json", "metrics.csv", "config.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    for seed in (0, 1):
        carries = [
            torch.load(folder / f"seed-{seed}/go-on/carry.pt", weights_only=True)
            for folder in (cut, whole)
        ]
        assert carries[0].keys() == carries[1].keys() == {"x", "y"}
        assert all(torch.equal(carries[0][name], carries[1][name]) for name in carries[0])
    assert json.loads((cut / "run.json").read_text())["status"] == "completed"


def test_a_run_that_failed_in_its_second_stage_goes_on_to_the_same_end(
    watched, tmp_path, monkeypatch, capsys
):
    assert main([*RUN, "--out", "whole"]) == 0
    table = capsys.readouterr().out.partition("took")[0]
    stop(monkeypatch, capsys)
    cut = tmp_path / "cut"
    before = files(cut / "seed-0/walk")
    assert {"records.jsonl", "carry.pt", "done.json"} <= before.keys()
    assert not (cut / "seed-0/go-on/done.json").exists()
    assert main(["run", "--resume", "cut", "--quiet"]) == 0
    assert capsys.readouterr().out.partition("took")[0] == table
    assert files(cut / "seed-0/walk") == before
    assert (cut / "seed-0/go-on/attempt-1.jsonl").exists()
    assert_same_end(cut, tmp_path / "whole")


def test_a_process_that_was_killed_is_taken_up_where_its_stage_began(watched, tmp_path, capsys):
    assert main([*RUN, "--out", "whole"]) == 0
    process_ = subprocess.Popen(
        process([*RUN, "--out", "cut"]),
        env=environment(watched, MLO_TEST_STOP="wait"),
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "waiting").exists():
            assert process_.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        before = files(tmp_path / "cut")
        capsys.readouterr()
        # While it lives, no other process may write to its folder.
        assert main(["run", "--resume", "cut"]) == 2
        assert main([*RUN, "--out", "cut"]) == 2
        printed = capsys.readouterr()
        assert "another process is writing to 'cut'" in joined(printed.err)
        assert printed.out == ""
        assert files(tmp_path / "cut") == before
    finally:
        os.kill(process_.pid, signal.SIGKILL)
        process_.wait()
    assert json.loads((tmp_path / "cut/run.json").read_text())["status"] == "running"
    finished = files(tmp_path / "cut/seed-0/walk")
    assert main(["run", "--resume", "cut"]) == 0
    assert "chain: going on in cut\n" in capsys.readouterr().out
    assert files(tmp_path / "cut/seed-0/walk") == finished
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_a_complete_run_is_not_resumed(watched, tmp_path, capsys):
    assert main([*RUN, "--out", "whole"]) == 0
    before = files(tmp_path / "whole")
    assert main(["run", "--resume", "whole"]) == 2
    assert "is complete; nothing to resume" in joined(capsys.readouterr().err)
    assert files(tmp_path / "whole") == before


def test_versions_that_differ_are_named_before_it_goes_on(watched, tmp_path, monkeypatch, capsys):
    stop(monkeypatch, capsys)
    path = tmp_path / "cut/versions.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "torch": "0.4", "devices": ["cpu", "abacus"]}))
    assert main(["run", "--resume", "cut"]) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == f"torch: the run began with 0.4, and goes on with {torch.__version__}"
    assert second.startswith("devices: the run began with cpu, abacus, and goes on with cpu")
    assert third == "chain: going on in cut"


def edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


UNFIT = {
    "another recipe": ("run.json", {"recipe": "chian"}, "did you mean 'chain'"),
    "no recipe": ("run.json", {"recipe": None}, "expected 'recipe' as a value of type str"),
    "other stages": ("run.json", {"stages": {"walk": 3}}, "now has"),
    "another length": ("run.json", {"stages": {"walk": 3, "go on": 4}}, "now has"),
    "an unknown setting": ("config.json", {"rat": 1}, "did you mean 'rate'"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_run_that_no_longer_fits_its_recipe_is_refused_and_left_alone(
    watched, tmp_path, monkeypatch, capsys, what
):
    name, changes, message = UNFIT[what]
    stop(monkeypatch, capsys)
    edit(tmp_path / "cut" / name, **changes)
    before = files(tmp_path / "cut")
    assert main(["run", "--resume", "cut"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in joined(printed.err)
    assert files(tmp_path / "cut") == before


def test_seconds_are_those_of_all_attempts(watched, tmp_path, monkeypatch, capsys):
    stop(monkeypatch, capsys)
    edit(tmp_path / "cut/run.json", seconds=1000.0)
    assert main(["run", "--resume", "cut"]) == 0
    assert "took 100" in capsys.readouterr().out


def test_the_event_files_of_a_stage_that_was_cut_off_are_kept_apart(
    watched, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("tensorboard")
    stop(monkeypatch, capsys, "--tensorboard")
    assert main(["run", "--resume", "cut", "--tensorboard"]) == 0
    found = {str(f.parent.relative_to(tmp_path / "cut")) for f in tmp_path.rglob("*tfevents*")}
    assert found == {
        *(f"seed-{seed}/{stage}/tensorboard" for seed in (0, 1) for stage in ("walk", "go-on")),
        "seed-0/go-on/tensorboard-attempt-1",
    }
