"""The folder of a run: who may write to it, what it is called, and files that are always whole."""

from __future__ import annotations

import datetime
import errno
import json
import os
import pathlib
import threading
import time

import pytest

import mlo
from mlo import run_lock
from mlo.errors import ConfigurationError, RunFolderError
from mlo.files import read_json
from mlo.recipe import RecipeConfig
from mlo.recorded import read_run
from mlo.run_folder import RunFolder, new_folder
from mlo.stage_folder import StageFolder, slug

from .staged import Config, Staged, begun, run


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.05)


def begin(folder, *stages):
    folder.begin("r", RecipeConfig(), dict.fromkeys(stages or ["walk"], 3))


def test_a_run_leaves_these_files_and_no_others(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config(first_seed=2)
    run(begun(path, recipe, config), recipe, config)
    names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    stages = {
        f"seed-2/{stage}/{name}"
        for stage in ("first", "go-on", "third")
        for name in ("records.jsonl", "carry.pt", "done.json", "checkpoints/manifest.json")
    }
    stages |= {  # the state at the end
        f"seed-2/{stage}/checkpoints/tick-{tick:010}.pt"
        for stage, tick in (("first", 2), ("go-on", 2), ("third", 0))
    }
    written = {"run.json", "config.json", "versions.json", "metrics.csv", "results.json"}
    assert names == {*written, *stages, ".lock"}
    assert read_json(path / "config.json") == config.model_dump()
    state = read_json(path / "run.json")
    assert state["stages"] == {"first": 3, "go on": 3, "third": 1}
    assert (state["recipe"], state["status"]) == ("staged", "completed")
    started, ended = (datetime.datetime.fromisoformat(state[key]) for key in ("started", "ended"))
    assert started <= ended
    assert state["seconds"] > 0
    end = read_json(path / "seed-2/third/done.json")
    assert (end["status"], end["ticks"]) == ("completed", 1)


# Who may write ------------------------------------------------------------------------------------


def test_a_new_folder_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path):
    for path in (tmp_path / "a/b", tmp_path / "c"):
        (tmp_path / "c").mkdir(exist_ok=True)
        with RunFolder.create(path) as folder:
            assert folder.path.is_dir()
        with RunFolder.create(str(path)):  # nothing but a lock was left behind
            pass


@pytest.mark.parametrize("state", ["completed", "failed", "cut off", "foreign"])
def test_a_folder_with_files_is_refused_and_stays_as_it_is(tmp_path, state):
    path = tmp_path / "run"
    if state == "foreign":
        path.mkdir()
        (path / "thesis.txt").write_text("old")
    else:
        with RunFolder.create(path) as folder:
            begin(folder)
            if state != "cut off":
                folder.end(state, "", 1.0)
    before = {file: file.read_bytes() for file in path.rglob("*")}
    with pytest.raises(RunFolderError, match="new or empty folder, found files in") as caught:
        RunFolder.create(path)
    assert ("--resume" in str(caught.value)) is (state != "foreign")
    assert {file: file.read_bytes() for file in path.rglob("*")} == before


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_folder_in_which_a_run_is_at_work_is_refused(tmp_path, has_begun):
    path = tmp_path / "run"
    with RunFolder.create(path) as folder:
        if has_begun:
            begin(folder)
            with pytest.raises(RunFolderError, match="another process is writing"):
                RunFolder.resume(path)
        with pytest.raises(RunFolderError, match=r"another process is writing|found files"):
            RunFolder.create(path)
        assert folder.path == path
    if has_begun:
        with RunFolder.resume(path):
            pass


def test_a_complete_run_is_not_resumed_and_what_is_no_run_neither(tmp_path):
    path = tmp_path / "run"
    with RunFolder.create(path) as folder:
        begin(folder)
        folder.end("completed", "", 1.0)
    with pytest.raises(RunFolderError, match="complete; nothing to resume") as caught:
        RunFolder.resume(path)
    # The error, which is still there, keeps all of its frames, and the lock was given back.
    assert not run_lock.in_use(path)
    assert caught.value.__traceback__ is not None
    (tmp_path / "other").mkdir()
    for place in (tmp_path / "other", tmp_path / "absent"):
        with pytest.raises(RunFolderError, match=r"run\.json.*'mlo run' made"):
            RunFolder.resume(place)
    assert not list((tmp_path / "other").iterdir())


def test_the_lock_is_given_back_by_whichever_thread_ends_the_run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    begin(folder)
    ender = threading.Thread(target=folder.__exit__, args=(None, None, None))
    ender.start()
    ender.join()
    with RunFolder.resume(tmp_path / "run"):
        pass


def test_a_run_that_ends_between_the_look_and_the_lock_keeps_its_folder(tmp_path, monkeypatch):
    path = tmp_path / "run"

    def late(place):
        monkeypatch.setattr("mlo.run_folder.locked", run_lock.locked)
        with RunFolder.create(path) as other:
            begin(other, "quick")
        return run_lock.locked(place)

    monkeypatch.setattr("mlo.run_folder.locked", late)
    with pytest.raises(RunFolderError, match="found files"):
        RunFolder.create(path)
    with RunFolder.resume(path) as folder:
        assert folder.state["stages"] == {"quick": 3}


def test_of_many_threads_that_want_a_folder_one_gets_it(tmp_path):
    for round in range(15):
        path, barrier, won, lost = tmp_path / str(round), threading.Barrier(4), [], []

        def create(path=path, barrier=barrier, won=won, lost=lost, brief=round % 2):
            barrier.wait()
            try:
                folder = RunFolder.create(path)
                begin(folder)
                won.append(folder)
                if brief:
                    folder.__exit__(None, None, None)
            except RunFolderError as error:
                lost.append(error)

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 3)
        won[0].__exit__(None, None, None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_many_processes_that_want_a_folder_one_gets_it(tmp_path):
    for round in range(5):
        path, children = tmp_path / f"run-{round}", []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                code = 2
                try:
                    folder = RunFolder.create(path)
                    begin(folder)
                    code = 0
                    folder.__exit__(None, None, None)
                except RunFolderError:
                    code = 1
                finally:
                    os._exit(code)
            children.append(child)
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        assert codes == [0, 1, 1, 1]


def test_those_who_look_do_not_keep_a_run_from_its_folder_nor_see_each_other(tmp_path, monkeypatch):
    path = tmp_path / "run"
    with RunFolder.create(path) as folder:
        begin(folder)
    monkeypatch.setattr(run_lock, "_GLANCE", 5.0)
    stop, seen, errors = threading.Event(), [], []

    def look():
        try:
            while not stop.is_set():
                seen.append(run_lock.in_use(path))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        while len(seen) < 300:
            time.sleep(0.001)
        assert not any(seen)
        monkeypatch.setattr(run_lock, "_PATIENCE", 0.5)
        for _ in range(20):
            RunFolder.resume(path).__exit__(None, None, None)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("walk", "walk"),
        ("plain+val", "plain-val"),
        ("Go on.", "go-on"),
        ("a/b", "a-b"),
        ("../../etc", "etc"),
        ("..\\c:\\x", "c-x"),
        ("/root", "root"),
        ("Größe α", "größe-α"),
        ("x\x00y\nz", "x-y-z"),
        ("a_b", "a_b"),
    ],
)
def test_names_become_one_part_of_a_path(tmp_path, name, expected):
    assert slug(name) == expected
    with RunFolder.create(tmp_path / "run") as folder:
        assert folder.stage(3, name).path == folder.path / "seed-3" / expected
        assert folder.plot(name) == folder.path / "plots" / f"{expected}.png"
        folder.stage(3, name).begin()
        assert folder.stage(3, name).path.is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "/", "  ", "+", "-", "x" * 300, "ä" * 101])
def test_a_name_of_which_nothing_or_too_much_is_left_is_refused(tmp_path, name):
    with RunFolder.create(tmp_path / "run") as folder:
        for use in (lambda: folder.stage(0, name), lambda: folder.plot(name)):
            with pytest.raises(RunFolderError, match="with letters or digits"):
                use()
        with pytest.raises(RunFolderError, match="with letters or digits"):
            begin(folder, name)
        assert [entry.name for entry in folder.path.iterdir() if entry.is_file()] == [".lock"]


def test_stages_that_would_share_a_folder_are_refused_before_anything_is_written(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        with pytest.raises(RunFolderError, match=r"names that differ.*'a b', 'A-B'"):
            begin(folder, "a b", "A-B")
        assert [entry.name for entry in folder.path.iterdir()] == [".lock"]
        begin(folder, "a b", "a-c")


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2020, 2, 29, 12, 0, 0)


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datetime, "datetime", Noon)
    folders = [new_folder(tmp_path / "runs", "lfm") for _ in range(3)]
    names = [folder.path.relative_to(tmp_path / "runs").as_posix() for folder in folders]
    assert names == [f"lfm-20200229-120000{end}" for end in ("", "-2", "-3")]
    assert all(folder.path.is_dir() for folder in folders)


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datetime, "datetime", Noon)
    barrier, folders = threading.Barrier(6), []

    def make():
        barrier.wait()
        folders.append(new_folder(tmp_path / "runs", "lfm"))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.path for folder in folders}) == 6


# What cannot be written ---------------------------------------------------------------------------


def test_a_place_where_no_folder_can_be_is_a_typed_error_and_stays(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "away")
    places = [file, file / "below", tmp_path / ("x" * 300), tmp_path / "nowhere"]
    for place in places:
        with pytest.raises(RunFolderError, match="cannot write") as caught:
            RunFolder.create(place)
        assert str(place) in str(caught.value)
    for place in (*places[:3], tmp_path / "nowhere"):
        with pytest.raises(RunFolderError, match="cannot write"):
            new_folder(place, "lfm")
    assert file.read_text() == "old"


def test_a_folder_that_cannot_be_locked_is_a_typed_error(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    with RunFolder.create(tmp_path / "run") as folder:
        begin(folder)
    monkeypatch.setattr(type(folder._lock), "_acquire", refuse)
    for use in (lambda: RunFolder.create(tmp_path / "x"), lambda: RunFolder.resume(folder.path)):
        with pytest.raises(RunFolderError, match=r"cannot write to .*Permission denied"):
            use()
    # It may still be read.
    assert read_run(folder.path).active is False


def test_a_file_in_the_place_of_a_stage_or_of_the_plots_is_a_typed_error(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        (folder.path / "seed-0").touch()
        (folder.path / "plots").touch()
        for use in (folder.stage(0, "walk").begin, lambda: folder.plot("x")):
            with pytest.raises(RunFolderError, match="cannot write"):
                use()


# Whole files --------------------------------------------------------------------------------------


def test_readers_never_see_half_of_a_file(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config(seeds=2, steps=2)
    folder = begun(path, recipe, config)
    stop, errors, seen, rounds = threading.Event(), [], set(), []

    def read():
        try:
            while not stop.is_set():
                for file in path.rglob("*.json"):
                    json.loads(file.read_text())
                found = read_run(path)
                seen.add(found.progress)
                rounds.append(found)
                assert sum(stage.damaged for stage in found.stages) <= 1
        except BaseException as error:
            errors.append(error)

    class Patient(mlo.Callback):
        """Goes on once the reader has looked again, or has failed."""

        def __init__(self, place):
            pass

        def on_end(self, result):
            before, deadline = len(rounds), time.monotonic() + 20
            while len(rounds) < before + 2 and not errors and time.monotonic() < deadline:
                time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run(folder, recipe, config, Patient)
    finally:
        stop.set()
        reader.join()
    assert not errors
    assert len(seen) > 1


def test_errors_of_folders_are_errors_of_the_configuration():
    assert issubclass(RunFolderError, ConfigurationError)
    assert issubclass(RunFolderError, mlo.MloError)
    assert StageFolder(pathlib.Path("x")).checkpoints == pathlib.Path("x/checkpoints")
