"""The command line from outside: what it prints, where, and which code it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest
import torch

import mlo
from mlo.cli import main

from .test_recipes import TINY, install

WIDTH = 80


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)  # as in a process of its own


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """No terminal, and nothing in the environment that pretends there were one."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "mlo_cli_tiny", TINY, "[mlo.recipes]\ntiny=mlo_cli_tiny:recipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def joined(text: str) -> str:
    """One line, as it was before it was folded to the width of the terminal."""
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--version", (f"mlo {mlo.__version__}",)),
        ("--help", ("list", "run RECIPE", "graph RECIPE", "exit codes:", "0 it worked", "130")),
        ("--help", ("check RECIPE", "1 the run or the check failed")),
        ("list --help", ("usage: mlo list",)),
        ("run --help", ("--out DIR", "--quiet", "'... RECIPE --help' lists the settings")),
        ("graph --help", ("--mermaid",)),
        ("check --help", ("--against", "--after N", "--tolerance", "--bias")),
        ("check lfm-reweighting --help", ("--against", "--after N", "--stage1-weights yes|no")),
        ("run lfm-reweighting --help", ("--noise none|flip|uniform", "--out", "(default: 400)")),
        ("graph lfm-reweighting --help", ("--mermaid", "--stage1-weights yes|no")),
    ],
)
def test_help_and_version_are_printed_and_end_well(capsys, words, expected):
    assert main(words.split()) == 0
    printed = capsys.readouterr()
    assert all(text in joined(printed.out) for text in expected)
    assert printed.err == ""


def test_list_shows_recipes_and_all_methods_with_a_line_each(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("recipes\n")
    for name in ("lfm-reweighting", *mlo.methods()):
        assert re.search(rf"^  {name}  +\w", printed, re.MULTILINE), name


def test_graph_draws_levels_and_who_responds(capsys):
    assert main(["graph", "lfm-reweighting"]) == 0
    lines = capsys.readouterr().out.splitlines()
    levels = [line for line in lines if line.startswith("level")]
    assert [line.split()[2] for line in levels] == ["validator", "relearner", "learner"]
    responses = [line.split()[1] for line in lines if line.startswith("  ") and "<~ " in line]
    assert responses == ["relearner"]


def test_graph_shows_what_a_setting_changes(capsys):
    words = ["graph", "lfm-reweighting", "--stage1-weights", "yes", "--hypergradient", "neumann"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    # With learned stage-1 weights the learner answers to the validator too.
    assert "<~ learner (response" in printed
    assert "learner [staged by Neumann]" in printed


def test_graph_is_drawn_as_mermaid(capsys):
    assert main(["graph", "lfm-reweighting", "--mermaid"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "flowchart BT"
    assert {
        "problem_relearner ==> problem_validator",
        "problem_learner --> problem_relearner",
    } <= set(lines)
    assert "data_valid[(valid)] -.-> problem_validator" in lines


WRONG = {
    "": ("command",),
    "lst": ("'lst'", "did you mean 'list'"),
    "list extra": ("extra",),
    "run": ("recipe",),
    "run --quiet": ("recipe",),
    "run --seeds 3 lfm-reweighting": ("the recipe comes first",),
    "run lfm-reweightin": ("'lfm-reweightin'", "did you mean 'lfm-reweighting'"),
    "run lfm-reweighting --seed 3": ("'--seed'", "did you mean '--seeds'"),
    "run lfm-reweighting --seeds": ("--seeds", "expected one argument"),
    "run lfm-reweighting --seeds x": ("seeds:", "integer", "'x'"),
    "run lfm-reweighting --noise flop": ("noise:", "'flop'", "did you mean 'flip'"),
    "run lfm-reweighting --set nois=flip": ("nois:", "did you mean 'noise'"),
    "run lfm-reweighting --hypergradient onestep": ("'onestep'", "did you mean 'one-step'"),
    "run lfm-reweighting --noise flop --rate 3": ("2 settings", "noise:", "rate:"),
    "run lfm-reweighting --validator-every 999": ("validator_every:", "ticks = 400"),
    "run lfm-reweighting --config absent.toml": ("'absent.toml'", "No such file"),
    "graph lfm-reweighting --mermeid": ("'--mermeid'", "did you mean '--mermaid'"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_named_with_the_cure_on_the_error_stream(capsys, tiny, words):
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    for text in WRONG[words]:
        assert text in joined(printed.err)


UNFIT = {
    "--valid-batch 200": ("valid_batch", "100"),
    "--train-batch 5000": ("train_batch", "5000"),
    "--imbalance 0.001": ("imbalance", "0.001"),
    "--validation-per-class 200": ("validation_per_class", "200"),
    "--device gpu": ("device", "'gpu'"),
}


@pytest.mark.parametrize("option", UNFIT)
def test_a_setting_that_does_not_fit_the_data_is_named_as_the_user_knows_it(capsys, tiny, option):
    words = ["run", "lfm-reweighting", "--ticks", "1", "--quiet", *option.split()]
    assert main(words) in (1, 2)
    error = joined(capsys.readouterr().err).replace("-", "_")
    assert all(text in error for text in UNFIT[option])


OUTCOMES = {
    "raise mlo.errors.DataError('no data; get some')": (1, "mlo: no data; get some"),
    "raise mlo.errors.LossError('not a scalar')": (1, "mlo: not a scalar"),
    "raise mlo.errors.StreamError('empty')": (1, "mlo: empty"),
    "raise mlo.errors.GraphError('alone')": (2, "mlo: alone"),
    "raise mlo.errors.ConfigurationError('wrong')": (2, "mlo: wrong"),
    "raise KeyboardInterrupt": (130, "mlo: interrupted"),
    "raise SystemExit('gave up')": (1, "gave up"),
    "raise SystemExit(3)": (3, ""),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_exit_code_tells_how_a_run_ended(tmp_path, monkeypatch, capsys, outcome):
    code, message = OUTCOMES[outcome]
    source = TINY.replace("ends = []", outcome)
    entries = "[mlo.recipes]\ntiny=mlo_cli_outcome:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_outcome", source, entries)
    out = tmp_path / "out"
    assert main(["run", "tiny", "--out", str(out)]) == code
    assert message in capsys.readouterr().err
    # An unfinished run has its configuration and no results.
    assert (out / "config.json").exists()
    assert not (out / "results.json").exists()


def test_an_error_of_an_unknown_kind_is_not_swallowed(tmp_path, monkeypatch):
    source = TINY.replace("ends = []", "raise ZeroDivisionError")
    entries = "[mlo.recipes]\ntiny=mlo_cli_outcome:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_outcome", source, entries)
    with pytest.raises(ZeroDivisionError):
        main(["run", "tiny", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("file", ["results.json", ".hidden"])
def test_a_folder_that_holds_files_is_refused_and_nothing_is_written(tiny, capsys, file):
    out = tiny / "old"
    out.mkdir()
    (out / file).write_text("old")
    assert main(["run", "tiny", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "never overwrites" in joined(printed.err)
    assert "old" in printed.err
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [(file, "old")]


def test_a_wrong_setting_makes_no_folder(tiny):
    assert main(["run", "tiny", "--rate", "fast", "--out", "new"]) == 2
    assert not (tiny / "new").exists()


def test_without_out_the_folder_is_named_after_the_recipe_and_the_time(tiny, capsys):
    assert main(["run", "tiny", "--quiet"]) == 0
    (folder,) = (tiny / "runs").iterdir()
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", folder.name)
    assert f"written to runs/{folder.name}" in capsys.readouterr().out


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_out_the_progress_and_nothing_else(tiny, capsys, quiet):
    assert main(["run", "tiny", "--out", "new", *(["--quiet"] if quiet else [])]) == 0
    printed = capsys.readouterr().out
    assert ("ticks" in printed) is not quiet
    assert "0.421875" in printed  # 0.75 ** 3
    assert "written to new" in printed
    assert json.loads((tiny / "new/results.json").read_text())["results"] == {"x": [0.421875]}


@pytest.mark.parametrize("ends", ["ends = []", "raise mlo.errors.DataError('no data')"])
def test_a_run_says_first_where_it_writes_and_says_so_whatever_comes(
    tmp_path, monkeypatch, capsys, ends
):
    entries = "[mlo.recipes]\ntiny=mlo_cli_first:recipe"
    install(tmp_path, monkeypatch, "mlo_cli_first", TINY.replace("ends = []", ends), entries)
    monkeypatch.chdir(tmp_path)
    main(["run", "tiny", "--out", "new folder"])
    assert capsys.readouterr().out.splitlines()[0] == "tiny: writing to new folder"
    main(["run", "tiny"])
    (folder,) = (tmp_path / "runs").iterdir()
    assert capsys.readouterr().out.splitlines()[0] == f"tiny: writing to runs/{folder.name}"
    main(["run", "tiny", "--quiet", "--out", "quiet"])
    assert "writing to" not in capsys.readouterr().out


def test_a_run_begins_with_the_seed_that_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*lfm("out"), "--first-seed", "4"]) == 0
    assert "seed 4" in capsys.readouterr().out
    found = json.loads((tmp_path / "out/results.json").read_text())["results"]["seeds"]
    assert [one["seed"] for one in found] == [4, 5]
    names = {path.name for path in (tmp_path / "out").glob("records-*")}
    assert names == {f"records-seed-{s}-{r}.jsonl" for s in (4, 5) for r in LFM_RUNS}
    assert main(["run", "lfm-reweighting", "--first-seed", "-1"]) == 2
    assert "first_seed: expected" in joined(capsys.readouterr().err)


LFM_RUNS = ("plain", "plain-val", "lfm")


def lfm(out) -> list[str]:
    words = "run lfm-reweighting --ticks 3 --seeds 2 --width 2 --features 4 --device cpu"
    return [*words.split(), "--out", str(out)]


def test_output_in_a_pipe_is_plain_lines_of_at_most_eighty_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # names of files are short, so no line need be long
    assert main(lfm("out")) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert [line for line in printed.splitlines() if len(line) > WIDTH] == []
    progress = [line for line in printed.splitlines() if line.startswith("lfm-rew")]
    assert progress[-1].startswith("lfm-reweighting: seed 1, LFM: 18/18 ticks")


@pytest.mark.parametrize("words", ["list", "graph lfm-reweighting", "run tiny --out new"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_without_unicode_gets_all_of_the_output(tiny, monkeypatch, words, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(words.split()) == 0
    stream.flush()
    assert len(stream.buffer.getvalue()) > 100


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
    code = "import sys; from mlo.cli import main; sys.exit(main())"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *lfm("out")],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == b""
    assert b"18/18 ticks" in process.stdout
    assert b"\x1b" not in process.stdout
    assert (tmp_path / "out/results.json").exists()
