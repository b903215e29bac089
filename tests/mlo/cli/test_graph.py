"""`mlo graph`: text, Mermaid and a picture, of any stage, to the screen or to a new file."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from mlo.cli import main
from mlo.recipes import load_recipe

from .called import joined

LFM = ["graph", "lfm-reweighting"]


def test_graph_draws_levels_and_who_responds(capsys):
    assert main(LFM) == 0
    lines = capsys.readouterr().out.splitlines()
    levels = [line for line in lines if line.startswith("level")]
    assert [line.split()[2] for line in levels] == ["validator", "relearner", "learner"]
    responses = [line.split()[1] for line in lines if line.startswith("  ") and "<~ " in line]
    assert responses == ["relearner"]


def test_graph_shows_what_a_setting_changes(capsys):
    assert main([*LFM, "--stage1-weights", "yes", "--hypergradient", "neumann"]) == 0
    printed = capsys.readouterr().out
    # With learned stage-1 weights the learner answers to the validator too.
    assert "<~ learner (response" in printed
    assert "learner [staged by Neumann]" in printed


def test_graph_draws_the_stage_that_is_asked_for(capsys):
    assert main([*LFM, "--stage", "plain"]) == 0
    assert "validator" not in capsys.readouterr().out


def test_a_stage_that_needs_another_one_first_is_named(chain, capsys):
    assert main(["graph", "chain", "--stage", "go on"]) != 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'x'" in printed.err


def test_graph_is_drawn_as_mermaid(capsys):
    assert main([*LFM, "--format", "mermaid"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "flowchart BT"
    assert {
        "problem_relearner ==> problem_validator",
        "problem_learner --> problem_relearner",
    } <= set(lines)
    assert "data_valid[(valid)] -.-> problem_validator" in lines


def test_graph_is_drawn_as_a_picture(capsys):
    from mlo import report

    assert main([*LFM, "--format", "svg"]) == 0
    printed = capsys.readouterr().out
    recipe = load_recipe("lfm-reweighting")
    assert printed == report.graph_svg(recipe.engine(recipe.config(), 0).graph.plain())
    words = {text.strip() for text in ET.fromstring(printed).itertext()}
    assert {"learner", "relearner", "validator"} <= words


@pytest.mark.parametrize("form", ["text", "mermaid"])
def test_a_file_holds_what_the_screen_would_show(tiny, capsys, form):
    assert main(["graph", "tiny", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert main(["graph", "tiny", "--format", form, "--out", "drawing"]) == 0
    assert capsys.readouterr().out == "written to drawing\n"
    assert (tiny / "drawing").read_text() == shown


def test_a_file_that_exists_is_never_overwritten(tiny, capsys):
    (tiny / "old.txt").write_text("old")
    assert main(["graph", "tiny", "--out", "old.txt"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--out: expected the name of a new file, found 'old.txt'" in joined(printed.err)
    assert (tiny / "old.txt").read_text() == "old"
    assert main(["graph", "tiny", "--out", "absent/new.txt"]) == 2
    assert "'absent' to be a folder" in joined(capsys.readouterr().err)


def test_a_drawing_makes_no_run_folder(tiny):
    assert main(["graph", "tiny"]) == 0
    assert not (tiny / "runs").exists()
