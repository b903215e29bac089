"""`mlo bench`: listed, run with settings, and written with what it was made with."""

from __future__ import annotations

import importlib
import json
import tomllib

import pytest
import torch

from mlo.benchmark import Benchmark, BenchmarkResults, measure
from mlo.cli import main
from mlo.versions import environment

from ..offered import install
from .called import ROOT, joined
from .measured import COUNTED, ENTRIES


@pytest.fixture
def counted(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "mlo_cli_counted", COUNTED, ENTRIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", ["bench", "list", "bench --help"])
def test_benchmarks_are_listed_with_a_line_each(counted, capsys, words):
    assert main(words.split()) == 0
    assert "counted Counts to a number." in joined(capsys.readouterr().out)


def test_a_benchmark_prints_and_writes_what_it_found(counted, capsys):
    words = ["bench", "counted", "--repeats", "5", "--threads", "2", "--out", "found.json"]
    assert main(words) == 0
    printed = joined(capsys.readouterr().out)
    assert "5" in printed.split()
    assert printed.endswith("a note written to found.json")
    assert torch.get_num_threads() == 1
    assert json.loads((counted / "found.json").read_text()) == {
        "benchmark": "counted",
        "environment": {**environment(), "threads": 2},
        "settings": {"threads": 2, "repeats": 5},
        "count": 5,
        "inside": 2,
    }


def test_without_out_nothing_is_written(counted):
    before = sorted(counted.iterdir())
    assert main(["bench", "counted", "--set", "repeats=2"]) == 0
    assert sorted(counted.iterdir()) == before


WRONG = {
    "bench counte": ("benchmark:", "'counte'", "did you mean 'counted'"),
    "bench counted --repeats 0": ("repeats:", "greater than or equal to 1"),
    "bench counted --repeat 1": ("'--repeat'", "did you mean '--repeats'"),
    "bench counted --preset x": ("'--preset'",),
    "bench counted --out old.json": ("--out", "new file", "'old.json'"),
}


@pytest.mark.parametrize("words", WRONG)
def test_mistakes_are_named_and_nothing_is_measured(counted, capsys, words):
    (counted / "old.json").write_text("old")
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [text for text in WRONG[words] if text not in joined(printed.err)] == []
    assert (counted / "old.json").read_text() == "old"


@pytest.mark.parametrize(
    "entry", ["counted=mlo_cli_counted:Counted", "x=mlo_cli_counted:benchmark"]
)
def test_what_is_no_benchmark_of_that_name_is_refused(tmp_path, monkeypatch, capsys, entry):
    install(tmp_path, monkeypatch, "mlo_cli_counted", COUNTED, f"[mlo.benchmarks]\n{entry}")
    assert main(["bench", entry.partition("=")[0]]) == 2
    assert "an instance of mlo.benchmark.Benchmark with" in joined(capsys.readouterr().err)


def offered() -> dict[str, Benchmark]:
    """The benchmarks that this project says it offers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for name, entry in project["entry-points"]["mlo.benchmarks"].items():
        module, _, attribute = entry.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def test_the_benchmarks_of_this_project_are_what_they_are_offered_as():
    assert {name: benchmark.name for name, benchmark in offered().items()} == {
        "engine-cost": "engine-cost",
        "nested-cost": "nested-cost",
        "checkpoint-cost": "checkpoint-cost",
        "bilevel-quadratic": "bilevel-quadratic",
        "reweighting-study": "reweighting-study",
        "nas-cost": "nas-cost",
        "nas-difference": "nas-difference",
        "nas-study": "nas-study",
    }


def run(name: str, **settings: int) -> tuple[BenchmarkResults, dict]:
    benchmark = offered()[name]
    return measure(benchmark, benchmark.config(**settings), console=None)


def results(name: str) -> dict:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def keys(value):
    """The names in nested mappings and lists, without the numbers."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    return [keys(item) for item in value] if isinstance(value, list) else None


def test_the_engine_is_measured_as_the_results_of_the_repository_were():
    found, written = run("engine-cost", repeats=2, regression_ticks=1, lfm_ticks=1)
    old = results("engine_cost")
    assert keys({key: written[key] for key in old}) == keys(old)
    for case in found.numbers["ticks"].values():
        assert case["largest relative difference of the losses"] < 1e-5
    counts = [row["loss evaluations"] for row in found.numbers["diamonds"]]
    assert counts == [row["loss evaluations"] for row in old["diamonds"]]
    assert len(found.tables) == 2


def test_nested_routes_are_measured_as_the_results_of_the_repository_were():
    found, written = run("nested-cost", repeats=2)
    old = results("nested_cost")
    assert keys(written["routes"]) == keys(old["routes"])
    for name, route in found.numbers["routes"].items():
        assert route["products"] == pytest.approx(old["routes"][name]["products"], rel=0.02)
        assert route["difference"] == pytest.approx(
            old["routes"][name]["difference"], rel=1e-3, abs=1e-9
        )
    assert written["settings"] == {"threads": 1, "repeats": 2}


def test_checkpoints_are_measured_as_the_results_of_the_repository_were(tmp_path):
    found, written = run("checkpoint-cost", repeats=2, width=8, folder=str(tmp_path))
    old = results("checkpoint_cost")
    assert keys({key: written[key] for key in old}) == keys(old)
    assert found.numbers["parameters"] == {"a": 8 * 72, "b": 8 * 72, "encoder": 44 * 72}
    held = 4 * (2 * 2 * 8 * 72 + 3 * 44 * 72)  # float32: weights and momenta, and two moments
    assert held < found.numbers["bytes"] < held + 150_000
    assert list(tmp_path.iterdir()) == []
    assert old["parameters"]["a"] > 2_000_000
    assert old["parameters"]["encoder"] > 11_000_000
    assert old["write"]["write_checkpoint"]["ratio"] < 1.5
