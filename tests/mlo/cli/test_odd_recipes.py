"""Recipes and settings that are not what they should be, and what a user is told of them."""

from __future__ import annotations

import json
import math
from typing import Literal

import pytest
from pydantic import Field, SecretStr

from mlo.cli import main
from mlo.configuration import RecipeConfig, check_written
from mlo.errors import ConfigurationError, DataError
from mlo.recipes import find_recipes
from mlo.run_folder import RunFolder

from ..offered import CHAIN, TINY, install


@pytest.fixture
def offer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def offered(code, name="tiny"):
        entries = f"[mlo.recipes]\n{name}=mlo_odd_{name}:recipe"
        return install(tmp_path, monkeypatch, f"mlo_odd_{name}", code, entries)

    return offered


class Fine(RecipeConfig):
    limit: float = Field(math.nan, allow_inf_nan=True)
    other: int = Field(3, alias="alias")
    word: Literal["a", "b"] | None = None


class Secret(RecipeConfig):
    key: SecretStr = SecretStr("a")


class Lost(RecipeConfig):
    hidden: int = Field(3, exclude=True)


class Wrong(RecipeConfig):
    low: int = Field(-1, ge=0)


def test_a_configuration_that_a_file_can_hold_passes():
    check_written(Fine, Fine(alias=4, word="b"))


@pytest.mark.parametrize(
    ("config", "name"), [(Secret(), "key"), (Lost(hidden=7), "hidden"), (Wrong(), "low")]
)
def test_a_setting_that_a_file_would_change_is_named(config, name):
    with pytest.raises(ConfigurationError, match=name):
        check_written(type(config), config)


def test_a_run_whose_settings_a_file_would_change_is_refused_before_there_is_a_folder(
    offer, tmp_path, capsys
):
    offer(TINY.replace("rate: float = Field(0.25,", "rate: float = Field(0.25, exclude=True,"))
    assert main(["run", "tiny", "--rate", "0.5", "--out", "new"]) == 2
    assert "'rate'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("leaving", ["raise SystemExit", "raise SystemExit(0)"])
def test_a_recipe_that_leaves_has_failed(offer, leaving):
    offer(TINY.replace("start = {", f"{leaving}\n            start = {{"))
    assert main(["run", "tiny", "--out", "new"]) == 1


def test_a_package_that_leaves_when_it_is_imported_hides_no_other(offer, capsys):
    offer("raise SystemExit('bye')", "rude")
    assert "rude" in find_recipes()
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "lfm-reweighting" in printed
    assert "cannot be loaded" in printed


def test_a_stage_that_builds_nothing_is_named(offer, capsys):
    offer(TINY.replace("return Setup(engine", "Setup(engine"))
    assert main(["run", "tiny", "--out", "new"]) == 2
    assert "Stage('walk')" in capsys.readouterr().err


def test_a_damaged_carry_says_how_to_go_on_and_that_helps(offer, tmp_path, capsys):
    offer(CHAIN, "chain")
    assert main(["run", "chain", "--out", "new", "--quiet"]) == 0
    table = (tmp_path / "new/metrics.csv").read_text()
    state = json.loads((tmp_path / "new/run.json").read_text())
    (tmp_path / "new/run.json").write_text(json.dumps({**state, "status": "interrupted"}))
    (tmp_path / "new/seed-0/go-on/done.json").unlink()
    (tmp_path / "new/seed-0/walk/carry.pt").write_bytes(b"")
    capsys.readouterr()
    assert main(["run", "--resume", "new", "--quiet"]) == 1
    assert "delete 'new/seed-0/walk/done.json'" in " ".join(capsys.readouterr().err.split())
    with RunFolder.resume("new") as folder, pytest.raises(DataError):
        folder.stage(0, "walk").carry()
    (tmp_path / "new/seed-0/walk/done.json").unlink()
    assert main(["run", "--resume", "new", "--quiet"]) == 0
    assert (tmp_path / "new/metrics.csv").read_text() == table


def test_event_files_are_set_aside_with_the_records_of_their_attempt(tmp_path):
    with RunFolder.create(tmp_path / "new") as folder:
        stage = folder.stage(0, "walk")
        for attempt in range(3):
            stage.begin()
            assert not stage.events.exists()
            stage.records.write_text(str(attempt))
            stage.events.mkdir()
            (stage.events / "file").write_text(str(attempt))
    for attempt in range(2):
        name = f"attempt-{attempt + 1}"
        assert (stage.path / f"{name}.jsonl").read_text() == str(attempt)
        assert (stage.path / f"tensorboard-{name}/file").read_text() == str(attempt)


def test_a_text_may_begin_with_a_bracket(offer, tmp_path):
    offer(TINY.replace("steps: int", 'text: str = ""\n        steps: int'))
    assert main(["run", "tiny", "--text", "[x", "--out", "new", "--quiet"]) == 0
    assert json.loads((tmp_path / "new/config.json").read_text())["text"] == "[x"


@pytest.mark.parametrize("name", ["deep.json", "deep.toml"])
def test_a_file_of_settings_that_is_nested_without_end_is_damaged(offer, tmp_path, name, capsys):
    offer(TINY)
    text = "[" * 200_000
    (tmp_path / name).write_text(text if name.endswith("json") else f"a={text}")
    assert main(["run", "tiny", "--config", name, "--out", "new"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_pipe_from_a_wide_terminal_gets_eighty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
