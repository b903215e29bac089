"""Help, version and `mlo list`: what there is, readable and complete."""

from __future__ import annotations

import re

import pytest

import mlo
from mlo.cli import main
from mlo.cli.program import program

from ..offered import METHOD, TINY, install
from .called import escapes, joined, too_long


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--version", (f"mlo {mlo.__version__}",)),
        ("--help", (*program.commands, "Exit codes:", "0 it worked", "130 interrupted")),
        ("--help", ("1 the run or the check failed", "2 wrong command", "_MLO_COMPLETE=bash_sour")),
        ("list --help", ("Usage: mlo list",)),
        ("run --help", ("--resume DIR", "--quiet", "--tensorboard", "'mlo run RECIPE --help'")),
        ("run --help", ("Recipes:", "lfm-reweighting Learning From Mistakes")),
        ("graph --help", ("Usage: mlo graph RECIPE", "lfm-reweighting")),
        ("check lfm-reweighting --help", ("--against", "--after N", "--tolerance X", "--bias X")),
        ("check lfm-reweighting --help", ("--stage NAME", "--stage1-weights yes|no")),
        (
            "run lfm-reweighting --help",
            ("--noise none|uniform|flip|flip2", "--out", "(default: 400)"),
        ),
        ("run lfm-reweighting --help", ("--preset NAME", "quick, uniform, imbalance")),
        ("run lfm-reweighting --help", ("a file over a preset", "--config FILE", "--set KEY=V")),
        ("graph lfm-reweighting --help", ("text|mermaid|svg", "--out FILE", "--stage NAME")),
        ("report --help", ("DIR...", "--out FILE", "comparison.html")),
        ("bench --help", ("Usage: mlo bench BENCHMARK",)),
    ],
)
def test_help_and_version_are_printed_and_end_well(capsys, words, expected):
    assert main(words.split()) == 0
    printed = capsys.readouterr()
    assert [text for text in expected if text not in joined(printed.out)] == []
    assert printed.err == ""
    assert too_long(printed.out) == escapes(printed.out) == []


def test_the_help_of_a_recipe_lists_every_field_of_its_configuration(capsys):
    from problems.lfm.config import ReweightingConfig

    assert main(["run", "lfm-reweighting", "--help"]) == 0
    printed = capsys.readouterr().out
    own, settings = printed.split("Settings of lfm-reweighting:")
    flags = re.findall(r"^  (--\S+)", settings, re.MULTILINE)
    assert flags == ["--" + name.replace("_", "-") for name in ReweightingConfig.model_fields]
    assert "--out" in own
    for field in ReweightingConfig.model_fields.values():
        assert field.description in joined(settings)


def test_list_shows_recipes_with_presets_and_all_methods(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    heads = [line for line in printed.splitlines() if not line.startswith(" ")]
    assert heads == ["recipes", "hypergradient methods", "benchmarks"]
    for name in ("lfm-reweighting", *mlo.methods()):
        assert re.search(rf"^  {name}  +\w", printed, re.MULTILINE), name
    assert "(presets: quick, uniform, imbalance)" in joined(printed)


def test_a_recipe_without_presets_is_listed_without_them(tmp_path, monkeypatch, capsys):
    source = TINY.replace('presets = {"fast": {"rate": 0.5}}', "")
    install(tmp_path, monkeypatch, "mlo_bare", source, "[mlo.recipes]\ntiny=mlo_bare:recipe")
    assert main(["list"]) == 0
    assert "\n  tiny             A parabola walked down.  " in capsys.readouterr().out
    assert main(["run", "tiny", "--preset", "fast"]) == 2
    assert "there is no option '--preset'" in joined(capsys.readouterr().err)


BROKEN = {
    "its module is missing": ("", "mlo_absent:recipe"),
    "its module raises": ("1 / 0", "mlo_bad:recipe"),
    "the object is no recipe": ("recipe = 3", "mlo_bad:recipe"),
}
COMMANDS = ("list", "run --help", "graph --help", "check --help")


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("what", BROKEN)
def test_one_damaged_package_hides_no_other(tiny, monkeypatch, capsys, words, what):
    code, entry = BROKEN[what]
    install(tiny, monkeypatch, "mlo_bad", code, f"[mlo.recipes]\nbroken={entry}")
    assert main(words.split()) == 0
    printed = joined(capsys.readouterr().out)
    assert "tiny A parabola walked down." in printed
    assert "broken (cannot be loaded: recipe 'broken'" in printed


def test_damaged_methods_and_benchmarks_hide_no_other(tiny, monkeypatch, capsys):
    entries = """
        [mlo.hypergradients]
        broken-method=mlo_bad:nothing
        [mlo.benchmarks]
        broken-benchmark=mlo_bad:nothing
    """
    install(tiny, monkeypatch, "mlo_bad", METHOD, entries)
    assert main(["list"]) == 0
    printed = joined(capsys.readouterr().out)
    assert "broken-method (cannot be loaded: " in printed
    assert "broken-benchmark (cannot be loaded: " in printed
    assert "neumann The first" in printed


def test_a_name_that_two_packages_offer_hides_no_other_kind(tiny, monkeypatch, capsys):
    install(tiny, monkeypatch, "mlo_two", TINY, "[mlo.recipes]\ntiny=mlo_two:recipe")
    assert main(["list"]) == 0
    printed = joined(capsys.readouterr().out)
    assert "recipes none (cannot be loaded: recipe 'tiny'" in printed
    assert "neumann The first" in printed
