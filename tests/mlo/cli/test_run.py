"""`mlo run`: what it prints, which folder it makes, and which code it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest

from mlo.cli import main

from ..offered import TINY, install
from .called import escapes, joined, process, too_long

FINISH = 'finish = lambda: {"x": module["x"]}'


def ending_with(tmp_path, monkeypatch, outcome):
    """Install the recipe `tiny` whose stage ends with a statement."""
    source = TINY.replace(FINISH, f"def finish():\n                {outcome}\n")
    assert source != TINY
    entries = "[mlo.recipes]\ntiny=mlo_cli_outcome:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_outcome", source, entries)
    monkeypatch.chdir(tmp_path)


OUTCOMES = {
    "raise mlo.errors.DataError('no data; get some')": (1, "mlo: no data; get some"),
    "raise mlo.errors.LossError('not a scalar')": (1, "mlo: not a scalar"),
    "raise mlo.errors.StreamError('empty')": (1, "mlo: empty"),
    "raise mlo.errors.GraphError('alone')": (2, "mlo: alone"),
    "raise mlo.errors.ConfigurationError('wrong')": (2, "mlo: wrong"),
    "raise KeyboardInterrupt": (130, "mlo: interrupted"),
    "raise SystemExit('gave up')": (1, "mlo: gave up"),
    "raise SystemExit(3)": (3, ""),
    "raise SystemExit": (1, ""),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_exit_code_tells_how_a_run_ended(tmp_path, monkeypatch, capsys, outcome):
    code, message = OUTCOMES[outcome]
    ending_with(tmp_path, monkeypatch, outcome)
    assert main(["run", "tiny", "--out", "out"]) == code
    printed = capsys.readouterr()
    assert printed.err.strip() == message
    assert "written to" not in printed.out
    # An unfinished run has its configuration and no results.
    assert (tmp_path / "out/config.json").exists()
    assert not (tmp_path / "out/results.json").exists()
    state = json.loads((tmp_path / "out/run.json").read_text())
    assert state["status"] == ("interrupted" if code == 130 else "failed")


def test_an_error_of_an_unknown_kind_is_not_swallowed(tmp_path, monkeypatch):
    ending_with(tmp_path, monkeypatch, "raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        main(["run", "tiny", "--out", "out"])


@pytest.mark.parametrize("file", ["results.json", ".hidden"])
def test_a_folder_that_holds_files_is_refused_and_nothing_is_written(tiny, capsys, file):
    out = tiny / "old"
    out.mkdir()
    (out / file).write_text("old")
    assert main(["run", "tiny", "--out", "old"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "never overwrites" in joined(printed.err)
    assert "--resume" not in printed.err  # there is nothing to go on with
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [(file, "old")]


def test_what_the_recipe_refuses_makes_no_folder(tmp_path, monkeypatch, capsys):
    source = TINY.replace(
        "def notes(",
        "def check(self, config):\n            raise mlo.errors.ConfigurationError('unfit')\n\n"
        "        def notes(",
    )
    entries = "[mlo.recipes]\ntiny=mlo_cli_unfit:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_unfit", source, entries)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiny", "--rate", "x", "--out", "new"]) == 2
    assert "rate:" in capsys.readouterr().err  # settings are looked at first
    assert main(["run", "tiny", "--out", "new"]) == 2
    assert capsys.readouterr().err == "mlo: unfit\n"
    assert not (tmp_path / "new").exists()


def test_without_out_the_folder_is_named_after_the_recipe_and_the_time(tiny, capsys):
    assert main(["run", "tiny", "--quiet"]) == 0
    (folder,) = (tiny / "runs").iterdir()
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", folder.name)
    printed = joined(capsys.readouterr().out)
    place = f"runs/{folder.name}"
    assert printed.endswith(f"written to {place}; 'mlo report {place}' makes a page of it")


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_out_the_progress_and_nothing_else(tiny, capsys, quiet):
    assert main(["run", "tiny", "--out", "new", *(["--quiet"] if quiet else [])]) == 0
    printed = capsys.readouterr().out
    assert ("3/3 ticks" in printed) is not quiet
    assert ("tiny: writing to new\n" in printed) is not quiet
    assert "0.4219" in printed  # 0.75 ** 3
    assert "\na note with [brackets] and :smile:\ntook " in printed  # text, not markup
    assert re.search(r"^took \d+\.\d s$", printed, re.MULTILINE)
    assert printed.endswith("\nwritten to new; 'mlo report new' makes a page of it\n")
    (metric,) = json.loads((tiny / "new/results.json").read_text())["metrics"]
    assert (metric["stage"], metric["seeds"]) == ("walk", {"0": 0.421875})


@pytest.mark.parametrize("outcome", ["return {}", "raise mlo.errors.DataError('no data')"])
def test_a_run_says_first_where_it_writes_whatever_comes(tmp_path, monkeypatch, capsys, outcome):
    ending_with(tmp_path, monkeypatch, outcome)
    main(["run", "tiny", "--out", "new folder"])
    assert capsys.readouterr().out.splitlines()[0] == "tiny: writing to new folder"
    main(["run", "tiny"])
    (folder,) = (tmp_path / "runs").iterdir()
    assert capsys.readouterr().out.splitlines()[0] == f"tiny: writing to runs/{folder.name}"


def test_the_way_to_the_report_can_be_pasted_into_a_shell(tiny, capsys):
    assert main(["run", "tiny", "--out", "new folder", "--quiet"]) == 0
    assert "mlo report 'new folder'" in joined(capsys.readouterr().out)


def test_a_run_begins_with_the_seed_that_is_asked_for(tiny, capsys):
    assert main(["run", "tiny", "--first-seed", "4", "--seeds", "2", "--out", "out"]) == 0
    assert "seed 4" in capsys.readouterr().out
    assert sorted(path.name for path in (tiny / "out").glob("seed-*")) == ["seed-4", "seed-5"]
    assert json.loads((tiny / "out/results.json").read_text())["metrics"][0]["seeds"] == {
        "4": 5 * 0.421875,
        "5": 6 * 0.421875,
    }


def test_output_in_a_pipe_is_plain_lines_of_at_most_eighty_columns(tiny, capsys):
    words = "run lfm-reweighting --preset quick --ticks 3 --width 2 --features 4 --out out"
    assert main([*words.split(), "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert escapes(printed) == too_long(printed) == []
    progress = [line for line in printed.splitlines() if line.startswith("lfm-rew")]
    assert progress[-1].startswith("lfm-reweighting: seed 1, LFM: 18/18 ticks")


@pytest.mark.parametrize("words", ["list", "graph lfm-reweighting", "run tiny --out new", "--help"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_without_unicode_gets_all_of_the_output(tiny, monkeypatch, words, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(words.split()) == 0
    stream.flush()
    assert len(stream.buffer.getvalue()) > 100


def test_a_letter_that_the_stream_lacks_becomes_a_question_mark(tmp_path, monkeypatch):
    source = TINY.replace("a note with", "a note → with")
    entries = "[mlo.recipes]\ntiny=mlo_cli_arrow:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_arrow", source, entries)
    monkeypatch.chdir(tmp_path)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["run", "tiny", "--out", "new"]) == 0
    stream.flush()
    assert b"a note ? with [brackets]" in stream.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_bar_and_color_only_where_it_is_wanted(
    tiny, monkeypatch, encoding, no_color
):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["run", "tiny", "--out", "new"]) == 0
    stream.flush()
    drawn = stream.buffer.getvalue().decode(encoding)
    assert "3/3 ticks" in drawn
    assert ("━" if encoding == "utf-8" else "-") * 20 in drawn
    # The cursor is hidden while the bar moves and comes back.
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    colors = re.findall(r"\x1b\[[\d;]*(?:3\d|4\d|9\d)[\d;]*m", drawn)
    assert bool(colors) is not no_color


def test_the_command_works_as_a_process_in_a_bare_environment(tmp_path):
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
    }
    words = [
        "run",
        "lfm-reweighting",
        "--ticks",
        "3",
        "--seeds",
        "2",
        "--width",
        "2",
        "--features",
        "4",
        "--out",
        "out",
    ]
    done = subprocess.run(
        process(words),
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert b"18/18 ticks" in done.stdout
    assert b"\x1b" not in done.stdout
    assert (tmp_path / "out/results.json").exists()


def test_tensorboard_gets_a_folder_in_every_stage(tiny):
    pytest.importorskip("tensorboard")
    assert main(["run", "tiny", "--tensorboard", "--quiet", "--out", "new"]) == 0
    files = list((tiny / "new").rglob("*tfevents*"))
    assert [file.parent for file in files] == [tiny / "new/seed-0/walk/tensorboard"]
    assert main(["run", "tiny", "--quiet", "--out", "bare"]) == 0
    assert list((tiny / "bare").rglob("*tfevents*")) == []
