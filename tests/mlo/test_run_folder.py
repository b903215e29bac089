"""The folder of a run, and that of a whole run of Learning From Mistakes made in it."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import math
import sys

import pytest
import torch

import mlo
from mlo.cli import main
from mlo.errors import ConfigurationError
from mlo.files import json_text, write_text
from mlo.run_folder import RunFolder, new_folder

SETTINGS = "--ticks 8 --seeds 2 --width 4 --features 8 --evaluations 4 --noise flip --rate 0.4"
NETWORKS = ["plain", "plain+val", "learner", "relearner"]
RUNS = {"plain": ["learner"], "plain-val": ["learner"], "lfm": ["learner", "relearner"]}


def run(*words: str) -> str:
    """Run the recipe and return what it printed."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["run", "lfm-reweighting", "--quiet", *words]) == 0
    finally:
        torch.set_default_dtype(dtype)
    return printed.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one run, and what the run printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run(*SETTINGS.split(), "--out", str(folder))


def read(folder, name):
    return json.loads((folder / name).read_text())


def records(folder, seed, name):
    lines = (folder / f"records-seed-{seed}-{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_leaves_these_files_and_no_others(finished):
    folder, _ = finished
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("config.json", "versions.json", "results.json"),
        *("plots/accuracy.png", "plots/weights.png"),
        *(f"records-seed-{seed}-{name}.jsonl" for seed in (0, 1) for name in RUNS),
    }


def test_the_configuration_is_resolved_and_the_versions_are_those_in_use(finished):
    folder, _ = finished
    config = read(folder, "config.json")
    assert (config["ticks"], config["width"], config["features"], config["seeds"]) == (8, 4, 8, 2)
    assert (config["temperature"], config["hypergradient"]) == (0.1, "one-step")
    versions = read(folder, "versions.json")
    assert versions["torch"] == torch.__version__
    assert versions["mlo-engine"] == mlo.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", RUNS)
def test_records_are_a_start_all_ticks_the_evaluations_and_an_end(finished, seed, name):
    lines = records(finished[0], seed, name)
    kinds = [line["kind"] for line in lines]
    assert kinds == ["start", *(["tick"] * 2 + ["evaluation"]) * 4, "end"]
    start, end = lines[0], lines[-1]
    assert start["ticks"] == 8
    moved = ["learner", "relearner", "validator"] if name == "lfm" else ["learner"]
    assert start["problems"] == moved
    assert (end["status"], end["ticks"]) == ("completed", 8)
    ticks = [line for line in lines if line["kind"] == "tick"]
    assert [line["tick"] for line in ticks] == list(range(8))
    for tick in ticks:
        assert {move["problem"] for move in tick["moves"]} == set(moved)
        assert all(move["loss"] > 0 and move["gradient_norm"] > 0 for move in tick["moves"])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_curves_of_the_results_are_the_evaluations_of_the_records(finished, seed):
    folder, _ = finished
    found = read(folder, "results.json")["results"]["seeds"][seed]
    assert found["seed"] == seed
    assert set(found["curves"]) == set(found["accuracy"]) == set(NETWORKS)
    for name, networks in RUNS.items():
        evaluated = [r for r in records(folder, seed, name) if r["kind"] == "evaluation"]
        for network in networks:
            curve = [[r["tick"] + 1, r["metrics"][network]] for r in evaluated]
            key = {"plain": "plain", "plain-val": "plain+val"}.get(name, network)
            assert found["curves"][key] == curve
            assert found["accuracy"][key] == curve[-1][1]
            assert curve[-1][0] == 8


def test_mean_and_spread_are_those_over_the_seeds(finished):
    results = read(finished[0], "results.json")["results"]
    for kind in ("accuracy", "weight"):
        assert results["mean"][kind].keys() == results["seeds"][0][kind].keys()
        for name, mean in results["mean"][kind].items():
            first, second = (seed[kind][name] for seed in results["seeds"])
            assert mean == pytest.approx((first + second) / 2, abs=1e-12)
            # Two values: half their distance, times the square root of 2 of the sample.
            half = abs(first - second) / 2
            assert results["spread"][kind][name] == pytest.approx(half * 2**0.5, abs=1e-12)


def test_the_printed_table_shows_the_numbers_of_the_results(finished):
    folder, printed = finished
    results = read(folder, "results.json")["results"]
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.split()}
    shown = {"0": results["seeds"][0], "1": results["seeds"][1]}
    for label, row in {**shown, "mean": results["mean"], "spread": results["spread"]}.items():
        accuracies = [f"{100 * row['accuracy'][name]:.1f}" for name in NETWORKS]
        weights = [f"{row['weight'][name]:.3f}" for name in ("clean", "corrupted")]
        assert rows[label] == accuracies + weights
    heading = "seed plain plain+val learner relearner a clean a corrupted"
    assert heading in " ".join(printed.split())
    assert f"written to {folder}" in printed


@pytest.mark.parametrize("name", ["accuracy", "weights"])
def test_plots_are_pictures_with_something_on_them(finished, name):
    from matplotlib.image import imread

    path = finished[0] / "plots" / f"{name}.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = imread(path)
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.05


def test_the_written_configuration_reproduces_every_number(finished, tmp_path):
    folder, printed = finished
    again = run("--config", str(folder / "config.json"), "--out", str(tmp_path / "again"))
    assert read(tmp_path / "again", "config.json") == read(folder, "config.json")
    old, new = (read(f, "results.json")["results"] for f in (folder, tmp_path / "again"))
    assert new == old
    assert again.partition("Plots")[0] == printed.partition("Plots")[0]
    for name in RUNS:
        for before, after in zip(
            records(folder, 1, name), records(tmp_path / "again", 1, name), strict=True
        ):
            assert {**before, "seconds": 0} == {**after, "seconds": 0}


def test_another_setting_gives_other_numbers(finished, tmp_path):
    config = str(finished[0] / "config.json")
    run("--config", config, "--seeds", "1", "--encoder-rate", "0.1", "--out", str(tmp_path / "b"))
    old = read(finished[0], "results.json")["results"]["seeds"][0]
    new = read(tmp_path / "b", "results.json")["results"]
    assert new["seeds"][0]["weight"] != old["weight"]
    # Of a single value there is no spread.
    assert set(new["spread"]["accuracy"].values()) == {None}


def test_a_run_without_matplotlib_ends_well_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    printed = run("--ticks", "1", "--seeds", "1", "--width", "1", "--out", str(tmp_path / "run"))
    assert "pip install 'mlo-engine[plots]'" in printed
    assert "results.json" in {path.name for path in (tmp_path / "run").iterdir()}


def test_an_interrupted_run_keeps_what_was_recorded(tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("problems.lfm.experiment.accuracy", interrupted)
    torch.set_default_dtype(torch.float32)
    words = f"run lfm-reweighting {SETTINGS} --quiet --out".split()
    assert main([*words, str(tmp_path / "run")]) == 130
    assert "interrupted" in capsys.readouterr().err
    lines = records(tmp_path / "run", 0, "plain")
    assert [line["kind"] for line in lines] == ["start", "tick", "tick", "end"]
    assert (lines[-1]["status"], lines[-1]["ticks"]) == ("failed", 2)
    assert not (tmp_path / "run/results.json").exists()


def test_a_new_folder_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path):
    path = tmp_path / "a/b"
    RunFolder(path)
    assert path.is_dir()
    folder = RunFolder(path)
    assert folder.records("x") == path / "records-x.jsonl"
    assert not list(path.iterdir())


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2020, 2, 29, 12, 0, 0)


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datetime, "datetime", Noon)
    folders = [new_folder(tmp_path / "runs", "lfm") for _ in range(3)]
    names = [folder.path.relative_to(tmp_path / "runs").as_posix() for folder in folders]
    assert names == [f"lfm-20200229-120000{end}" for end in ("", "-2", "-3")]
    assert all(folder.path.is_dir() for folder in folders)


def test_a_folder_that_another_run_has_just_made_is_not_taken(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigurationError, match="cannot create"):
        RunFolder(tmp_path / "run", exist_ok=False)
    RunFolder(tmp_path / "run")


def test_a_file_in_the_place_of_the_folder_is_refused_and_stays(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    for place in (path, path / "below"):
        with pytest.raises(ConfigurationError, match="cannot create"):
            RunFolder(place)
    assert path.read_text() == "old"


def test_numbers_that_json_lacks_are_written_as_words_and_read_back():
    value = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, 3: None, "d": True}
    text = json_text(value)
    assert json.loads(text) == {
        "a": ["nan", ["inf", 1.5]],
        "b": {"c": "-inf"},
        "3": None,
        "d": True,
    }
    assert math.isnan(float(json.loads(text)["a"][0]))


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")
    monkeypatch.setattr("mlo.files.os.replace", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
