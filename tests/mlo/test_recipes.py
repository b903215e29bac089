"""Recipes and methods that installed packages offer; the packages are made for each test."""

from __future__ import annotations

import importlib
import pathlib
import sys
import textwrap

import pytest

import mlo
from mlo.callbacks import Recorder
from mlo.cli import main
from mlo.errors import ConfigurationError
from mlo.recipe import Job
from mlo.recipes import find_recipes, load_recipe
from mlo.run_folder import RunFolder

TINY = """
    import torch
    from rich.table import Table

    import mlo
    from mlo.configuration import RecipeConfig
    from mlo.recipe import Recipe, Results

    class Config(RecipeConfig):
        steps: int = 3
        rate: float = 0.25

    def loss(point):
        return 0.5 * point["x"].square().sum()

    class Tiny(Recipe):
        name, summary, config = "tiny", "A parabola walked down.", Config

        def engine(self, config, seed):
            start = {"x": torch.tensor(1.0 + seed)}
            return mlo.Engine([mlo.Problem("point", params=start, loss=loss,
                optimizer=lambda params: torch.optim.SGD(params, config.rate))])

        def run(self, config, job):
            ends = []
            with job.board(config.seeds * config.steps) as board:
                for seed in range(config.seeds):
                    engine = self.engine(config, seed)
                    engine.run(config.steps, callbacks=job.callbacks(f"seed {seed}", board))
                    ends.append(engine.problems["point"].module["x"].item())
            table = Table("seed", "x", title="ends")
            for seed, x in enumerate(ends):
                table.add_row(str(seed), f"{x:.6f}")
            return Results({"x": ends}, (table,), ("a note with [brackets] and :smile:",))

    recipe = Tiny()
"""

METHOD = """
    import dataclasses
    import mlo

    @dataclasses.dataclass(frozen=True)
    class Mine(mlo.Direct):
        '''A method of another package.'''

    nothing = 3
"""


def install(folder: pathlib.Path, monkeypatch, name: str, code: str, entries: str) -> None:
    """Put a distribution with one module and some entry points where Python finds it."""
    site = folder / f"site-{name}"
    info = site / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))
    (site / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()


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
    assert "0.562500" in printed
    assert "1.125000" in printed
    # What a recipe says is text, not markup.
    assert "a note with [brackets] and :smile:" in printed
    assert {path.name for path in out.glob("*.jsonl")} == {
        "records-seed-0.jsonl",
        "records-seed-1.jsonl",
    }


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


def test_a_job_records_in_its_folder_and_without_one_nowhere(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for where in (folder, None):
        job = Job("title", folder=where, quiet=True)
        with job.board(1) as board:
            callbacks = job.callbacks("Seed 3, plain+val", board)
        paths = [c.path for c in callbacks if isinstance(c, Recorder)]
        assert paths == ([] if where is None else [folder.path / "records-seed-3-plain-val.jsonl"])
