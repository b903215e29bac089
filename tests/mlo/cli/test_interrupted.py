"""SIGTERM and Ctrl-C end a run after a whole tick; `mlo run --resume` goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
import torch

from mlo.cli import main
from mlo.plain import differences
from mlo.recorded import read_run

from ..offered import CHAIN, install
from .called import environment, joined, process

SLOW = (
    CHAIN.replace(
        'return Setup(engine, {"x": (distance, 1)}, lambda: {"y": module["x"]})',
        'return Setup(engine, {"x": (distance, 9)}, lambda: {"y": module["x"]}, [Slow()])',
    ).replace(
        "def go_on(self, config, seed, carry):",
        "def go_on(self, config, seed, carry):\n        wait(carry)",
    )
    + """
    import os, pathlib, time

    class Slow:
        def on_tick(self, record):
            if os.environ.get("MLO_TEST_SLOW") == "ticks":
                pathlib.Path("ready").touch()
                time.sleep(0.02)

    def wait(carry):
        if "x" in carry and os.environ.get("MLO_TEST_SLOW") == "building":
            pathlib.Path("ready").touch()
            time.sleep(60)
"""
)
RUN = ["run", "chain", "--quiet", "--steps", "150", "--rate", "0.01"]


@pytest.fixture
def slow(tmp_path, monkeypatch):
    entries = "[mlo.recipes]\nchain=mlo_cli_slow:recipe"
    site = install(tmp_path, monkeypatch, "mlo_cli_slow", SLOW, entries)
    monkeypatch.chdir(tmp_path)
    return site


def signalled(site, folder, number, what):
    """Run until it is ready, send the signal; exit code and error stream."""
    with subprocess.Popen(
        process([*RUN, "--out", "cut"]),
        env=environment(site, MLO_TEST_SLOW=what),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        end = time.monotonic() + 60
        while not (folder / "ready").exists():
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.01)
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    return child.returncode, said


def content(folder):
    """Results, what was handed on, and all records without times."""
    found = {"results": json.loads((folder / "results.json").read_text())}
    for stage in read_run(folder).stages:
        found[stage.name] = [{**r, "seconds": 0} for r in (*stage.ticks, *stage.evaluations)]
        found[f"{stage.name} carry"] = torch.load(
            folder / f"seed-0/{stage.name.replace(' ', '-')}/carry.pt", weights_only=True
        )
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_a_tick_and_says_how_to_go_on(slow, tmp_path, number, capsys):
    code, said = signalled(slow, tmp_path, number, "ticks")
    assert code == 128 + number
    assert said.startswith(f"mlo: stopped by {number.name} after ")
    assert "the state is saved" in joined(said)
    assert "go on with 'mlo run --resume cut'" in joined(said)
    assert "Traceback" not in said
    run = read_run(tmp_path / "cut")
    assert run.state["status"] == "interrupted"
    (stage,) = (s for s in run.stages if not s.done)
    assert f"after {stage.made} of 150 ticks" in said
    assert main(["run", "--resume", "cut", "--quiet"]) == 0
    assert main([*RUN, "--out", "whole"]) == 0
    found, expected = content(tmp_path / "cut"), content(tmp_path / "whole")
    assert list(differences(expected, found)) == []
    assert not list((tmp_path / "cut").rglob("attempt-*"))


def test_a_signal_while_a_stage_is_built_ends_at_once(slow, tmp_path):
    code, said = signalled(slow, tmp_path, signal.SIGTERM, "building")
    assert (code, said) == (143, "mlo: stopped by SIGTERM\n")
    run = read_run(tmp_path / "cut")
    assert (run.state["status"], run.active) == ("interrupted", False)
    assert main(["run", "--resume", "cut", "--quiet"]) == 0


def test_states_are_saved_as_often_as_is_said(slow, tmp_path, monkeypatch, capsys):
    saved = []
    from mlo.checkpoints import Checkpoints

    plain = Checkpoints.save

    def told(self, make, tick):
        saved.append(tick)
        return plain(self, make, tick)

    monkeypatch.setattr(Checkpoints, "save", told)
    words = ["run", "chain", "--quiet", "--steps", "5", "--out", "often"]
    assert main([*words, "--save-every", "2"]) == 0
    assert saved == [1, 3, 4, 1, 3, 4]
    assert main(["run", "chain", "--save-every", "0"]) == 2
    assert "--save-every" in capsys.readouterr().err


def test_a_state_of_other_versions_is_taken_up_when_that_is_asked_for(
    slow, tmp_path, monkeypatch, capsys
):
    code, _ = signalled(slow, tmp_path, signal.SIGTERM, "ticks")
    assert code == 143
    monkeypatch.setattr(
        "mlo.engine_state.described_versions", lambda: {"mlo-engine": "9", "torch": "99"}
    )
    assert main(["run", "--resume", "cut", "--quiet"]) == 1
    said = joined(capsys.readouterr().err)
    assert f"torch: saved with '{torch.__version__}', now '99'" in said
    assert "--other-versions" in said
    assert main(["run", "--resume", "cut", "--quiet", "--other-versions"]) == 0
