"""Runs that are cut off anywhere and go on: the same files as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
import torch

import mlo
from mlo.errors import RunFolderError
from mlo.metrics import Metric
from mlo.recipes import load_recipe
from mlo.recorded import read_run
from mlo.run_folder import RunFolder
from mlo.stage_folder import StageFolder

from .offered import CHAIN, install
from .staged import Config, Staged, begun, files, run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder and metrics of a run of three stages and two seeds that nothing disturbed."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    torch.set_default_dtype(torch.float64)
    recipe, config = Staged(), Config(seeds=2)
    return path, run(begun(path, recipe, config), recipe, config)


def results(path):
    return json.loads((path / "results.json").read_text())


def compare(path, metrics, undisturbed):
    expected_path, expected = undisturbed
    assert list(map(repr, metrics)) == list(map(repr, expected))
    assert files(path) == files(expected_path)
    assert results(path) == results(expected_path)
    found = read_run(path)
    assert found.complete
    assert list(map(repr, found.metrics)) == list(map(repr, expected))
    for stage, other in zip(found.stages, read_run(expected_path).stages, strict=True):
        assert stage.damaged == 0
        for one, two in ((stage.ticks, other.ticks), (stage.evaluations, other.evaluations)):
            assert [{**r, "seconds": 0} for r in one] == [{**r, "seconds": 0} for r in two]


def cutting(seed, stage, hook, tick, error):
    """Makes callbacks that raise at one moment of one stage."""

    class Cut(mlo.Callback):
        def __init__(self, place):
            self.here = place.path.parts[-2:] == (f"seed-{seed}", stage)

    def cut(self, record):
        if self.here and getattr(record, "tick", tick) == tick:
            raise error("on purpose")

    setattr(Cut, hook, cut)
    return Cut


def untouched(path):
    """Times and bytes of the files of all stages that are over."""
    over = [done.parent for done in path.rglob("done.json")]
    return {
        file: (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes())
        for folder in over
        for file in folder.iterdir()
        if file.is_file()
    }


MOMENTS = [
    *[(0, "first", hook, 0) for hook in ("on_start", "on_move", "on_tick", "on_end")],
    *[(0, "first", "on_tick", tick) for tick in (1, 2)],
    (0, "first", "on_evaluation", 1),
    (0, "go-on", "on_start", 0),
    (0, "go-on", "on_move", 2),
    (0, "go-on", "on_evaluation", 2),
    (0, "go-on", "on_end", 0),
    (0, "third", "on_tick", 0),
    (1, "first", "on_tick", 1),
    (1, "go-on", "on_tick", 0),
    (1, "third", "on_end", 0),
]


@pytest.mark.parametrize("save_every", [None, 1])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    tmp_path, undisturbed, moment, error, save_every
):
    path, recipe, config = tmp_path / "run", Staged(), Config(seeds=2)
    folder, cut = begun(path, recipe, config), cutting(*moment, error)
    with pytest.raises(error):
        run(folder, recipe, config, cut, save_every=save_every)
    seed, stage = moment[:2]
    found = read_run(path)
    kind = "interrupted" if error is KeyboardInterrupt else "failed"
    assert (found.state["status"], found.active) == (kind, False)
    assert found.state["reason"] == f"{error.__name__}: on purpose"
    order = [(s, n) for s in (0, 1) for n in ("first", "go-on", "third")]
    over = order.index((seed, stage))
    assert f"{over} of 6 stages are over; seed {seed}, " in found.progress
    assert sum(part.done for part in found.stages) == over
    if over:
        assert len((path / "metrics.csv").read_text().splitlines()) == 1 + 2 * over
    assert not (path / "results.json").exists()
    records = path / f"seed-{seed}" / stage / "records.jsonl"
    before, kept = untouched(path), records.read_bytes()
    assert kept.count(b"\n") == len(kept.splitlines()) >= 1

    built = len(recipe.built)
    compare(path, run(RunFolder.resume(path), recipe, config), undisturbed)
    assert untouched(path).items() >= before.items()
    # Where it has saved a state it goes on from there, with the records until then.
    hook, tick = moment[2:]
    saved = hook == "on_end" or (save_every is not None and tick > 0)
    attempt = records.with_name("attempt-1.jsonl")
    assert not saved if attempt.exists() else saved
    if not saved:
        assert attempt.read_bytes() == kept
    assert len(recipe.built) - built == 6 - over
    assert read_run(path).state["reason"] == "all stages were run"


def test_a_failure_while_a_stage_is_built_or_ends_is_made_good_too(tmp_path, undisturbed):
    path, config = tmp_path / "run", Config(seeds=2)
    folder = begun(path, Staged(), config)
    for where in ("go_on", "third"):
        recipe = Staged()
        setattr(recipe, where, lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder, recipe, config)
        folder = RunFolder.resume(path)
    compare(path, run(folder, Staged(), config), undisturbed)


@pytest.mark.parametrize("where", ["mlo.stage_folder.write_text", "mlo.run_folder.write_text"])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_run_that_cannot_write_ends_and_goes_on_once_it_can(
    tmp_path, monkeypatch, undisturbed, where, number
):
    path, recipe, config = tmp_path / "run", Staged(), Config(seeds=2)
    folder, calls = begun(path, recipe, config), []
    from mlo.files import write_text

    def failing(target, text):
        calls.append(target)
        if len(calls) == number:
            raise RunFolderError("no room")
        write_text(target, text)

    monkeypatch.setattr(where, failing)
    with pytest.raises(RunFolderError, match="no room"):
        run(folder, recipe, config)
    monkeypatch.undo()
    assert read_run(path).state["status"] == "failed"
    compare(path, run(RunFolder.resume(path), recipe, config), undisturbed)


def test_a_chain_goes_on_where_the_first_stage_ended(tmp_path, monkeypatch):
    entries = "[mlo.recipes]\nchain = mlo_test_chain:recipe"
    install(tmp_path, monkeypatch, "mlo_test_chain", CHAIN, entries)
    recipe = load_recipe("chain")
    config, path = recipe.config(steps=4, seeds=2), tmp_path / "run"
    cut = cutting(1, "go-on", "on_tick", 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(begun(path, recipe, config), recipe, config, cut)
    found = run(RunFolder.resume(path), recipe, config)
    stages = [(seed, *part) for seed in (0, 1) for part in (("walk", 4), ("go on", 8))]
    for metric, (seed, stage, ticks) in zip(found, stages, strict=True):
        expected = Metric(seed, stage, "x", "x", pytest.approx((1 + seed) * 0.75**ticks, rel=1e-14))
        assert metric == expected


def test_attempts_that_were_cut_off_are_all_kept_whatever_became_of_their_names(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config()
    cut = cutting(0, "first", "on_tick", 1, ZeroDivisionError)
    folder = begun(path, recipe, config)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            run(folder, recipe, config, cut)
        folder = RunFolder.resume(path)
    place = StageFolder(path / "seed-0" / "first").path
    (place / "attempt-1.jsonl").unlink()
    second = (place / "attempt-2.jsonl").read_bytes()
    run(folder, recipe, config)
    assert (place / "attempt-2.jsonl").read_bytes() == second
    assert {p.name for p in place.glob("*.jsonl")} == {
        "records.jsonl",
        "attempt-1.jsonl",
        "attempt-2.jsonl",
    }


def test_times_add_up_over_the_attempts(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config()
    cut = cutting(0, "go-on", "on_tick", 1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(begun(path, recipe, config), recipe, config, cut)
    first = read_run(path).state
    with RunFolder.resume(path):
        during = read_run(path)
        assert during.status.startswith("running: 1 of 3 stages")
        assert (during.state["ended"], during.state["seconds"]) == (None, first["seconds"])
    assert read_run(path).status.startswith("cut off: 1 of 3 stages")
    run(RunFolder.resume(path), recipe, config)
    last = read_run(path).state
    assert last["started"] == first["started"]
    assert last["seconds"] > first["seconds"] > 0


# A process that is killed -------------------------------------------------------------------------


class Slow(mlo.Callback):
    def __init__(self, place):
        pass

    def on_tick(self, record):
        time.sleep(0.01)


def killed_after(seconds, work) -> bool:
    """Do the work in a process that is killed; whether it had ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_again_and_again_leaves_a_folder_that_goes_on(
    tmp_path, undisturbed
):
    path, recipe, config = tmp_path / "run", Staged(), Config(seeds=2)
    draw, kills = random.Random(0), 0
    with begun(path, recipe, config):
        pass
    while kills < 12 and read_run(path).state["status"] != "completed":
        before = untouched(path)
        ended = killed_after(
            draw.uniform(0.005, 0.09), lambda: run(RunFolder.resume(path), recipe, config, Slow)
        )
        kills += not ended
        found = read_run(path)
        assert untouched(path).items() >= before.items()
        assert all(stage.damaged <= 1 for stage in found.stages)
        if not ended and not found.complete:  # it may be killed when all is done
            assert (found.state["status"], found.active) == ("running", False)
            assert found.status.startswith("cut off: ")
    assert kills >= 2
    if not read_run(path).complete:
        run(RunFolder.resume(path), recipe, config)
    compare(path, read_run(path).metrics, undisturbed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_is_free_again_once_its_process_is_killed(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config()
    ready = tmp_path / "ready"

    def hold():
        with begun(path, recipe, config):
            ready.touch()
            time.sleep(30)

    child = os.fork()
    if child == 0:
        try:
            hold()
        finally:
            os._exit(1)
    try:
        while not ready.exists():
            time.sleep(0.002)
        assert read_run(path).active
        for use in (RunFolder.resume, RunFolder.create):
            with pytest.raises(RunFolderError, match=r"another process|found files"):
                use(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not read_run(path).active
    run(RunFolder.resume(path), recipe, config)
    assert read_run(path).complete
