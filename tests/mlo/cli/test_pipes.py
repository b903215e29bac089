"""Every command once on a real run, as a process whose output goes through a pipe."""

from __future__ import annotations

import subprocess

import pytest

from mlo.cli.program import program

from ..offered import CHAIN, install
from .called import call, environment, escapes, process, too_long
from .measured import COUNTED, ENTRIES

# Command -> words after it, and what it prints.
USES = {
    "list": ("", "chain"),
    "run": ("chain --seeds 2 --out new", "written to new; 'mlo report new' makes a page of it"),
    "graph": ("chain --out drawing.txt", "written to drawing.txt"),
    "check": ("lfm-reweighting --width 2 --features 4", "validator: total gradient against"),
    "report": ("done", "written to done/report.html"),
    "bench": ("counted --out found.json", "written to found.json"),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The environment of a process that finds a recipe and a benchmark."""
    entries = "[mlo.recipes]\nchain=mlo_cli_chain:recipe"
    sites = [
        install(tmp_path, monkeypatch, "mlo_cli_chain", CHAIN, entries),
        install(tmp_path, monkeypatch, "mlo_cli_counted", COUNTED, ENTRIES),
    ]
    return environment(*sites)


@pytest.mark.parametrize("command", USES)
def test_the_command_works_through_a_pipe(installed, tmp_path, command):
    words, expected = USES[command]
    if command == "report":
        assert call(["run", "chain", "--out", "done"], tmp_path, installed).returncode == 0
    done = call([command, *words.split()], tmp_path, installed)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
    assert escapes(done.stdout) == too_long(done.stdout) == []


@pytest.mark.parametrize("command", USES)
def test_its_help_fits_into_eighty_columns(installed, tmp_path, command):
    done = call([command, "--help"], tmp_path, installed)
    assert (done.returncode, done.stderr) == (0, "")
    assert escapes(done.stdout) == too_long(done.stdout) == []


def test_every_command_that_the_help_lists_is_used_here(installed, tmp_path):
    done = call(["--help"], tmp_path, installed)
    listed = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if line[2] != " "]
    assert names == list(program.commands) == list(USES)


def test_settings_are_used_by_a_process(installed, tmp_path):
    words = ["run", "chain", "--preset", "fast", "--set", "steps=1", "--out", "new"]
    assert call(words, tmp_path, installed).returncode == 0
    # One step of two halves it twice, from 1.
    assert "0,walk,x,x,0.5\n0,go on,x,x,0.25\n" in (tmp_path / "new/metrics.csv").read_text()


@pytest.mark.parametrize("words", ["list", "--help", "run lfm-reweighting --help"])
def test_a_reader_that_leaves_early_is_no_mistake(installed, tmp_path, words):
    writer = subprocess.Popen(
        process(words.split()),
        cwd=tmp_path,
        env=installed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    writer.stdout.close()  # before anything is written
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(60) in {0, 1}
