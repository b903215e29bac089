"""Hundreds of malformed configurations: each mistake is named, nothing else, nothing is written."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import pytest

from mlo.cli import main
from mlo.configuration import configure
from problems.lfm.config import ReweightingConfig

from .configured import WHOLE, Experiment, reasons
from .malformed import edits, malformed, mistakes_of, several

# Settings with a value each, since TOML has no null; any file will do.
OPTIONAL = {"imbalance": 0.5, "data": __file__, "encoder_weights": __file__}
MODELS = {
    "lfm": (ReweightingConfig, ReweightingConfig(**OPTIONAL).model_dump()),
    "nested": (Experiment, WHOLE),
}


def cases(name):
    """Every mistake alone, and then some of them together."""
    model, settings = MODELS[name]
    alone = mistakes_of(model, settings)
    draw = random.Random(1)
    return [[m] for m in alone] + [several(alone, draw.randint(2, 8), draw) for _ in range(60)]


CASES = {name: cases(name) for name in MODELS}


def named(cases):
    return [
        "+".join(f"{m.rule} {'.'.join(map(str, m.path))}={m.key or m.value}" for m in mistakes)[:60]
        for mistakes in cases
    ]


def check(name, mistakes):
    model, settings = MODELS[name]
    said = reasons(malformed(settings, mistakes), model)
    wanted = {path: words for m in mistakes for path, words in m.said.items()}
    assert said.keys() == wanted.keys()
    for path, words in wanted.items():
        assert words in said[path]
        # There is a reason before what was got.
        assert said[path].startswith(("expected ", "there is no such setting; "))
        # Nobody is told of a nearest name where none was misspelt.
        assert ("did you mean" in said[path]) == ("did you mean" in words)


@pytest.mark.parametrize("name", MODELS)
def test_the_settings_that_the_mistakes_are_put_into_fit(name):
    model, settings = MODELS[name]
    configure(model, settings, title="example")


@pytest.mark.parametrize("mistakes", CASES["lfm"], ids=named(CASES["lfm"]))
def test_every_mistake_in_the_settings_of_lfm_is_named_and_nothing_else(mistakes):
    check("lfm", mistakes)


@pytest.mark.parametrize("mistakes", CASES["nested"], ids=named(CASES["nested"]))
def test_every_mistake_in_nested_settings_is_named_and_nothing_else(mistakes):
    check("nested", mistakes)


@pytest.mark.parametrize("name", MODELS)
def test_there_are_hundreds_of_cases_of_every_rule(name):
    model, _ = MODELS[name]
    alone = [mistakes[0] for mistakes in CASES[name] if len(mistakes) == 1]
    rules = Counter(m.rule for m in alone)
    assert len(CASES[name]) >= 300
    assert rules["key"] >= 80
    assert rules["type"] >= 80
    assert rules["range"] >= 10
    assert rules["word"] >= 10
    assert rules["stray"] >= 1
    for value in (None, True):
        assert any(m.rule == "type" and m.value is value for m in alone)
    assert any(isinstance(m.value, float) and math.isnan(m.value) for m in alone)
    assert sum(len(mistakes) > 1 for mistakes in CASES[name]) >= 50
    # Every key is misspelt somewhere, and has a value of the wrong type.
    keys = {field.alias or key for key, field in model.model_fields.items()}
    for rule in ("key", "type"):
        assert keys == {m.path[0] for m in alone if m.rule == rule}


def test_edits_are_counted_as_by_hand():
    assert edits("width", "width") == 0
    for wrong in ("widh", "widdth", "wdith", "wixth"):
        assert edits(wrong, "width") == 1
    assert edits("", "abc") == 3
    assert edits("kitten", "sitting") == 3


def toml(settings):
    """The settings as TOML, whose words for numbers and truth values are those of JSON and NaN."""
    lines = (
        f"{key} = {json.dumps(value)}".replace("NaN", "nan") for key, value in settings.items()
    )
    return "\n".join(lines) + "\n"


FILES = random.Random(2).sample(CASES["lfm"], 150)


@pytest.mark.parametrize("mistakes", FILES, ids=named(FILES))
def test_a_malformed_file_ends_the_command_and_nothing_is_written(
    mistakes, tmp_path, monkeypatch, capsys
):
    settings = malformed(MODELS["lfm"][1], mistakes)
    # TOML has no null.
    kind = "json" if None in settings.values() else "toml"
    path = tmp_path / f"settings.{kind}"
    path.write_text(json.dumps(settings) if kind == "json" else toml(settings))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["run", "lfm-reweighting", "--config", str(path), "--out", "new"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    for mistake in mistakes:
        for place in mistake.said:
            assert f" {place}: " in printed.err
    assert list(folder.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == sorted([path, folder])


def test_both_kinds_of_files_are_among_the_malformed_ones():
    kinds = Counter(None in malformed(MODELS["lfm"][1], m).values() for m in FILES)
    assert kinds[True] >= 5
    assert kinds[False] >= 100
