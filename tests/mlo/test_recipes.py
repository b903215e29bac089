"""Recipes and methods that installed packages offer; the packages are made for each test."""

from __future__ import annotations

import sys

import pytest

import mlo
from mlo.cli import main
from mlo.errors import ConfigurationError
from mlo.recipes import find_recipes, load_recipe

from .offered import METHOD, TINY, install


@pytest.fixture
def offer(tmp_path, monkeypatch):
    def offered(name, code, entries, group="mlo.recipes"):
        install(tmp_path, monkeypatch, name, code, f"[{group}]\n{entries}\n")

    return offered


def test_a_recipe_is_found_without_importing_its_package_and_loaded_by_name(offer):
    offer("mlo_test_tiny", TINY, "tiny = mlo_test_tiny:recipe")
    found = find_recipes()
    assert list(found) == sorted(found)
    assert {"tiny", "lfm-reweighting"} <= found.keys()
    assert "mlo_test_tiny" not in sys.modules
    assert load_recipe("tiny").summary == "A parabola walked down."


def test_an_installed_recipe_is_listed_drawn_and_run(offer, tmp_path, capsys):
    offer("mlo_test_tiny", TINY, "tiny = mlo_test_tiny:recipe")
    out = tmp_path / "out"
    assert main(["list"]) == 0
    assert "tiny" in capsys.readouterr().out.split()
    assert main(["graph", "tiny"]) == 0
    assert capsys.readouterr().out.startswith("level 0  point [plain]")
    assert main(["run", "tiny", "--steps", "2", "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    # x <- (1 - 0.25) x, twice, from 1 and from 2.
    assert "0.5625" in printed
    assert "1.125" in printed
    # What a recipe says is text, not markup.
    assert "a note with [brackets] and :smile:" in printed
    records = {path.relative_to(out).as_posix() for path in out.rglob("*.jsonl")}
    assert records == {f"seed-{seed}/walk/records.jsonl" for seed in (0, 1)}


def test_an_unknown_recipe_is_named_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"'lfm-reweighing'.*mean 'lfm-reweighting'"):
        load_recipe("lfm-reweighing")


def test_a_name_that_two_packages_offer_is_refused_naming_both(offer):
    for package in ("mlo_test_one", "mlo_test_two"):
        offer(package, TINY, f"tiny = {package}:recipe")
    with pytest.raises(ConfigurationError, match="uninstall one") as caught:
        find_recipes()
    for word in ("'tiny'", "mlo_test_one:recipe", "mlo_test_two:recipe"):
        assert word in str(caught.value)


def test_one_recipe_that_is_installed_twice_is_one(offer, tmp_path, monkeypatch):
    offer("mlo_test_tiny", TINY, "tiny = mlo_test_tiny:recipe")
    install(tmp_path, monkeypatch, "copy", TINY, "[mlo.recipes]\ntiny = mlo_test_tiny:recipe\n")
    assert find_recipes()["tiny"].value == "mlo_test_tiny:recipe"


BROKEN = {
    "its module is missing": ("", "broken = mlo_test_absent:recipe"),
    "its module imports another": (
        "import mlo_test_absent",
        "broken = mlo_test_bad:recipe",
    ),
    "its module raises": ("1 / 0", "broken = mlo_test_bad:recipe"),
    "its module is no Python": ("def", "broken = mlo_test_bad:recipe"),
    "the object is missing": ("", "broken = mlo_test_bad:recipe"),
    "the object is no recipe": ("recipe = 3", "broken = mlo_test_bad:recipe"),
    "the recipe is a class": (TINY, "broken = mlo_test_bad:Tiny"),
    "the recipe has another name": (TINY, "broken = mlo_test_bad:recipe"),
}


@pytest.mark.parametrize(("code", "entry"), BROKEN.values(), ids=BROKEN)
def test_a_broken_recipe_is_named_and_hides_no_other(offer, capsys, code, entry):
    offer("mlo_test_bad", code, entry)
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "lfm-reweighting" in printed
    assert "broken" in printed
    assert "cannot be loaded" in " ".join(printed.split())
    with pytest.raises(ConfigurationError, match="broken") as caught:
        load_recipe("broken")
    assert entry.partition(" = ")[2] in str(caught.value)


def test_an_installed_method_is_listed_and_made_by_name(offer, capsys):
    offer("mlo_test_method", METHOD, "mine = mlo_test_method:Mine", group="mlo.hypergradients")
    assert isinstance(mlo.make_method("mine"), mlo.Direct)
    assert {"mine", "one-step", "dense"} <= mlo.methods().keys()
    assert main(["list"]) == 0
    assert "A method of another package." in " ".join(capsys.readouterr().out.split())


BROKEN_METHODS = {
    "its module is missing": "broken = mlo_test_absent:Mine",
    "the object is missing": "broken = mlo_test_method:Absent",
    "the object is no method": "broken = mlo_test_method:nothing",
}


# A warning is one way to report a broken package.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", BROKEN_METHODS.values(), ids=BROKEN_METHODS)
def test_a_broken_method_is_named_and_hides_no_other(offer, capsys, entry):
    offer("mlo_test_method", METHOD, entry, group="mlo.hypergradients")
    assert "one-step" in mlo.methods()
    with pytest.raises(ConfigurationError, match="broken"):
        mlo.make_method("broken")
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert "one-step" in printed.out
    assert "broken" in printed.out + printed.err


@pytest.mark.parametrize("names", [("mine", "mine"), ("one-step",)])
def test_a_method_cannot_take_a_name_that_is_taken(offer, names):
    for i, name in enumerate(names):
        entry = f"{name} = mlo_test_method{i}:Mine"
        offer(f"mlo_test_method{i}", METHOD, entry, group="mlo.hypergradients")
    with pytest.raises(ConfigurationError, match=f"'{names[0]}'"):
        mlo.methods()
