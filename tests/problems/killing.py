"""Kills runs of Learning From Mistakes at random moments; a program of its own.

    python killing.py memory|workers FOLDER KILLS SEED

It forks a process for each attempt, before anything has been computed here, so that an attempt
costs no import. Prints one line of JSON: how many were killed, how many runs these made up, and
every difference to the undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import mlo
from mlo.callbacks import Recorder
from mlo.plain import differences
from mlo.recipe_run import Job, carry_out
from mlo.recipes import load_recipe
from mlo.run_folder import RunFolder
from problems.lfm.config import ReweightingConfig
from problems.lfm.reweighting import lfm_problems
from problems.lfm.task import make_task
from problems.lfm.validator import Validator
from problems.models import conv_classifier, conv_encoder

TICKS = 12


def in_memory(folder: pathlib.Path) -> None:
    """The recipe, all its stages; its streams shuffle tensors in memory."""
    recipe = load_recipe("lfm-reweighting")
    config = ReweightingConfig(
        seeds=1, ticks=TICKS, width=4, features=8, evaluations=4, validator_every=2
    )
    if (folder / "run.json").exists():
        run = RunFolder.resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # killed before it began
        run = RunFolder.create(folder)
        run.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
    with run:
        carry_out(recipe, config, Job(folder=run, quiet=True, save_every=1))


class Jittered(Dataset):
    """Images with noise of all three random generators, drawn in the workers."""

    def __init__(self, x, y) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i):
        noise = 0.1 * torch.randn(()) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return self.x[i] + noise, self.y[i], i


def with_workers(folder: pathlib.Path) -> None:
    """The same program on loaders with two workers each, shuffled by the global generator."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    random.seed(7)  # Python draws it anew in every process
    np.random.seed(7)
    task = make_task(ReweightingConfig(width=4), 0)
    nets = [conv_classifier(10, width=4, features=8, batch_norm=True) for _ in range(2)]
    encoder = conv_encoder(width=4, features=8, batch_norm=True)
    validator = Validator(encoder, coefficients=len(task.valid[1]))
    train, valid = Jittered(*task.train), Jittered(*task.valid)
    data = {
        "train": DataLoader(train, 250, shuffle=True, num_workers=2, drop_last=True),
        "valid": DataLoader(valid, 50, shuffle=True, num_workers=1),
    }
    engine = mlo.Engine(lfm_problems(*nets, validator, ticks=TICKS), data, lookahead=True)
    engine.run(
        TICKS,
        callbacks=[Recorder(folder / "records.jsonl", resume=True)],
        evaluate={"norm": (lambda learner: sum(p.norm() for p in learner.parameters()), 3)},
        checkpoints=mlo.Checkpoints(folder / "checkpoints", every=1),
        resume=True,
    )
    (folder / "done").touch()


def over(folder: pathlib.Path) -> bool:
    """Whether the run in this folder is complete."""
    state = folder / "run.json"
    if state.exists():
        return json.loads(state.read_text())["status"] == "completed"
    return (folder / "done").exists()


def attempt(job, folder: pathlib.Path, after: float | None) -> bool:
    """Run or go on in a process that is killed after so many seconds; whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # so that its workers go with it
            job(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    until = time.monotonic() + (float("inf") if after is None else after)
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found and status != 0:
            raise SystemExit(f"the run in {folder} failed with status {status}")
        if found:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    # A worker that waits for a lock of the dead process would stay, and keep the output open.
    with contextlib.suppress(ProcessLookupError):  # it had not begun
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def timeless(value):
    """The same without the times that things took."""
    if isinstance(value, dict):
        # How many bytes the records have depends on the digits of the times in them.
        parts = {key: part for key, part in value.items() if key not in ("seconds", "bytes")}
        return {key: timeless(part) for key, part in parts.items()}
    if isinstance(value, list):
        return [timeless(part) for part in value]
    return value


def content(folder: pathlib.Path) -> dict:
    """All that a run leaves, bit by bit: final states, records, results, what is handed on."""
    found = {}
    for states in sorted(folder.rglob("checkpoints")):
        newest = max(states.glob("*.pt"))
        place = str(states.relative_to(folder))
        found[place] = timeless(mlo.read_checkpoint(newest))
    for records in sorted(folder.rglob("records.jsonl")):
        place = str(records.relative_to(folder))
        found[place] = [timeless(json.loads(line)) for line in records.read_text().splitlines()]
    for name in ("results.json", "metrics.csv"):
        for file in sorted(folder.rglob(name)):
            found[str(file.relative_to(folder))] = file.read_text()
    for carry in sorted(folder.rglob("carry.pt")):
        found[str(carry.relative_to(folder))] = torch.load(carry, weights_only=True)
    return found


def main(kind: str, root: str, kills: int, seed: int) -> None:
    """Kill as often as that, and compare every run that came to its end."""
    torch.set_num_threads(1)
    job, draw = {"memory": in_memory, "workers": with_workers}[kind], random.Random(seed)
    path, killed, runs, found = pathlib.Path(root), 0, 0, []
    started = time.monotonic()
    attempt(job, path / "undisturbed", None)
    length = time.monotonic() - started
    expected = None
    while killed < kills:
        folder = path / f"run-{runs}"
        while not over(folder):
            wait = draw.uniform(0.0, length) if killed < kills else None
            killed += attempt(job, folder, wait)
        expected = expected or content(path / "undisturbed")
        found += [f"run {runs}: {where}" for where, _, _ in differences(expected, content(folder))]
        shutil.rmtree(folder)
        runs += 1
    parts = sorted(expected or {})
    told = {"killed": killed, "runs": runs, "differences": found[:20], "parts": parts}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
