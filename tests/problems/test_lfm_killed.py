"""Learning From Mistakes, killed at random moments: the end is that of a run nobody touched."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

KILLS = int(os.environ.get("MLO_KILLS", "2"))
"""Kills of each kind; the environment asks for more."""

ROOT = pathlib.Path(__file__).parents[2]
PARTS = {
    "memory": {
        f"seed-0/{stage}/{part}"
        for stage in ("plain", "plain-val", "lfm")
        for part in ("checkpoints", "records.jsonl", "carry.pt")
    }
    | {"results.json", "metrics.csv"},
    "workers": {"checkpoints", "records.jsonl"},
}


@pytest.mark.parametrize("kind", PARTS)
def test_runs_that_are_killed_end_bit_for_bit_like_one_that_is_not(kind, tmp_path):
    script = ROOT / "tests" / "problems" / "killing.py"
    command = [sys.executable, str(script), kind, str(tmp_path), str(KILLS), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["killed"] >= KILLS
    assert found["differences"] == []
    assert set(found["parts"]) == PARTS[kind]
