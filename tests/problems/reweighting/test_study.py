"""The study: every method gets the same chance, nothing reported chooses anything, files hold."""

from __future__ import annotations

import json
import math

import pytest
import rich.console
import torch

from mlo.benchmark import measure
from mlo.configuration import combine, configure
from mlo.errors import ConfigurationError, DataError, RunFolderError
from mlo.recipe_run import Job, run_recipe
from problems import studying
from problems.publishing import with_tables
from problems.reweighting.recipe import recipe
from problems.reweighting.study import benchmark, publish, rendering
from problems.reweighting.study.benchmark import StudyConfig, study
from problems.reweighting.study.compute import operations, relative_cost
from problems.reweighting.study.plan import ABLATIONS, CASES, GRID, network, program
from problems.reweighting.study.trial import run_trial, trial_settings
from problems.studying import Kept, Trial, run_all
from problems.tables import mean_and_error, with_error


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def results():
    return json.loads(publish.RESULTS.read_text(encoding="utf-8"))


def test_every_method_is_tuned_with_as_many_different_configurations():
    assert {len(grid) for grid in GRID.values()} == {8}
    for method, grid in GRID.items():
        assert len({json.dumps(own, sort_keys=True) for own in grid}) == 8, method
    assert {*map(program, GRID)} >= {
        *("plain", "focal", "class-balanced", "fine-tuning"),
        *("l2rw", "meta-weight-net", "learned-weights", "lfm"),
    }


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_all_settings_fit_the_recipe(case):
    changed = {name: combine(GRID["lfm"][0], own) for name, own in ABLATIONS.items()}
    for method, own in [(m, own) for m, grid in GRID.items() for own in grid] + [
        ("lfm", own) for own in changed.values()
    ]:
        config = configure(recipe.config, trial_settings(*case, method, own), title="study")
        assert config.programs == (program(method),)
        assert config.imbalance == (0.01 if "imbalance" in case[1] else None)
        assert config.noisy is ("flip" in case[1])


def test_reported_seeds_choose_nothing(results):
    assert not set(results["seeds"]) & set(results["tuning_seeds"])
    assert len(results["seeds"]) == 5
    for entry in results["tuned"]:
        values = [float(value) for value in entry["accuracies"]]
        best = max(value for value in values if not math.isnan(value))
        assert results["grid"][entry["method"]][values.index(best)] == entry["chosen"]


def test_what_was_measured_is_what_was_tuned_and_the_plan(results):
    assert results["grid"] == json.loads(json.dumps({m: list(g) for m, g in GRID.items()}))
    chosen = {(e["data"], e["damage"], e["method"]): e["chosen"] for e in results["tuned"]}
    for result in results["results"]:
        place = result["data"], result["damage"]
        seeds = results["ablation_seeds"] if result["role"] == "ablation" else results["seeds"]
        assert len(result["runs"]) == len(seeds)
        if result["role"] == "method":
            assert result["settings"] == chosen[*place, result["name"]]
        if result["role"] == "ablation":
            assert result["settings"] == combine(
                chosen[*place, "lfm"], json.loads(json.dumps(ABLATIONS[result["name"]]))
            )


def test_the_page_is_rendered_from_the_committed_results(results):
    text = publish.PAGE.read_text(encoding="utf-8")
    assert with_tables("page", text, publish.TABLES, results) == text
    for place in publish.PICTURES:
        assert (publish.ROOT / place).is_file()
        assert place.removeprefix("docs/") in text


def test_the_committed_numbers_come_out_again(results):
    result = next(r for r in results["results"] if (r["name"], r["data"]) == ("plain", "digits"))
    settings = trial_settings("digits", result["damage"], "plain", result["settings"])
    found = run_trial(settings, 0)["networks"]["classifier"]["accuracy"]
    # Other machines round otherwise, which 300 steps make larger.
    assert found == pytest.approx(result["runs"][0]["networks"]["classifier"]["accuracy"], abs=0.05)


def test_means_and_standard_errors_are_those_of_the_runs(results):
    rows = rendering.accuracy_rows(results)
    for row in rows[1:]:
        for case, text in zip(rendering.cases(results), row[1:], strict=True):
            (result,) = (
                r
                for r in results["results"]
                if (r["name"], r["data"], r["damage"]) == (row[0], *case)
                and r["role"] != "ablation"
            )
            values = torch.tensor(
                [run["networks"][network(row[0])]["accuracy"] for run in result["runs"]]
            ).double()
            middle, error = 100 * values.mean(), 100 * values.std() / len(values) ** 0.5
            assert text.strip("*") == f"{middle:.1f} ({error:.1f})"


@pytest.mark.parametrize("method", ["lfm", "fine-tuning"])
def test_a_trial_is_a_run_of_the_recipe(method):
    own = combine(GRID[method][0], {"ticks": 3, "fine_tuning": {"ticks": 2}})
    settings = trial_settings("digits", "flip 40 %", method, own)
    config = configure(recipe.config, {**settings, "first_seed": 4}, title="study")
    metrics = {(m.stage, m.evaluation, m.name): m.value for m in run_recipe(recipe, config, QUIET)}
    found = run_trial(settings, 4)
    for name, of in found["networks"].items():
        assert of["accuracy"] == metrics[method, name, "accuracy"]
    if method == "lfm":
        parts = ("clean", "corrupted")
        assert [found["weights"][p] for p in parts] == pytest.approx(
            [metrics[method, "weights", p] for p in parts], rel=1e-6
        )


def test_a_trial_that_diverges_says_so_and_is_never_chosen():
    own = {"ticks": 30, "training": {"learning_rate": 1e8, "momentum": 0.0}}
    found = run_trial(trial_settings("digits", "flip 40 %", "plain", own), 0)
    assert "of problem 'classifier' is n" in found["failed"]  # nan, or not finite
    assert studying.best_of([math.nan, 0.1, 0.3, 0.3]) == 2
    assert studying.best_of([math.nan, math.nan]) == 0


def test_failed_runs_are_counted_and_not_averaged():
    assert mean_and_error([90.0, math.nan, 80.0]) == pytest.approx((85.0, 5.0))
    assert with_error([90.0, math.nan, 80.0]) == "85.0 (5.0), 1 of 3 failed"
    assert with_error([math.nan]) == "nan, 1 of 1 failed"
    assert rendering._largest(["NaN", 0.2, math.nan, 0.1]) == 0.2


def test_reported_seeds_may_not_be_tuning_seeds():
    with pytest.raises(ConfigurationError, match="first_tuning_seed: expected at least seeds = 5"):
        configure(StudyConfig, {"first_tuning_seed": 3}, title="study")


def test_runs_that_are_kept_are_not_made_again(tmp_path):
    path = tmp_path / "kept.jsonl"
    trials = [Trial({"a": 1}, seed) for seed in range(3)]
    kept = Kept(path)
    for trial in trials:
        kept.add(trial, {"seed": trial.seed})
    # The last line is cut off in the middle, as by a kill.
    whole = path.read_text()
    path.write_text(whole[:-9])
    again = Kept(path)
    assert [trial.key in again.found for trial in trials] == [True, True, False]
    again.add(trials[2], {"seed": 2})
    assert len(Kept(path).found) == 3
    made = []
    done = []
    found = run_all(made.append, trials[:2], again, workers=1, done=lambda: done.append(1))
    assert list(found) == [{"seed": 0}, {"seed": 1}]
    assert (len(done), made) == (2, [])
    path.write_text(path.read_text().replace(studying.code_digest(), "0123"))
    with pytest.raises(DataError, match="holds runs of other code"):
        Kept(path)
    path.write_text("no JSON\n")
    with pytest.raises(DataError, match="expected a line of JSON for each run"):
        Kept(path)
    with pytest.raises(RunFolderError):
        Kept(tmp_path / "nowhere" / "kept.jsonl")


def test_a_whole_study_in_small(tmp_path, monkeypatch):
    grid = {m: GRID[m][:2] for m in ("plain", "lfm")}
    monkeypatch.setattr(benchmark, "GRID", grid)
    monkeypatch.setattr(benchmark, "CASES", CASES[:1])
    slots = "coefficients of slots"
    monkeypatch.setattr(benchmark, "ABLATIONS", {slots: ABLATIONS[slots]})
    config = StudyConfig(
        seeds=2, tuning_seeds=1, shorten=100, workers=1, kept=tmp_path / "kept.jsonl"
    )
    console = rich.console.Console(quiet=True)
    found, written = measure(study, config, console)
    assert [r["name"] for r in found.numbers["results"]] == [
        *("plain", "lfm", "plain, equal compute", "ensemble, equal compute"),
        slots,
    ]
    lines = (tmp_path / "kept.jsonl").read_text().splitlines()
    made = [json.loads(json.loads(line)["key"])[0].get("held_per_class") for line in lines]
    assert made == [10] * 4 + [None] * 10  # chosen on what is held out, reported on the test set
    again, _ = measure(study, config, console)
    assert again.numbers == found.numbers
    assert written["settings"]["shorten"] == 100


def test_the_cost_of_a_tick_is_that_of_its_passes():
    # An ensemble of two is two networks; in a tick of an upper problem that differentiates
    # through a step there are four passes and more, of which the learner's gradient is shared.
    assert relative_cost("digits", "ensemble") == 2
    assert 3.5 < relative_cost("digits", "meta-weight-net") < 4.5
    assert operations("digits", "lfm") > 2 * operations("digits", "meta-weight-net")


QUIET = Job(quiet=True)


def test_the_short_run_on_cifar_is_told_as_it_was_measured():
    place = publish.ROOT / "benchmarks/results/reweighting_cifar10_small.json"
    found = json.loads(place.read_text(encoding="utf-8"))
    assert "JPEG copy" in found["about"]
    values = {
        (m["stage"], m["evaluation"]): m["mean"]
        for m in found["metrics"]
        if m["metric"] == "accuracy"
    }
    text = publish.PAGE.read_text(encoding="utf-8")
    for row in (
        f"| plain | {100 * values['plain', 'classifier']:.1f} | {found['seconds']['plain']:.0f} |",
        f"| Meta-Weight-Net | {100 * values['meta-weight-net', 'classifier']:.1f} | "
        f"{found['seconds']['meta-weight-net']:.0f} |",
        f"| LFM: learner, relearner | {100 * values['lfm', 'learner']:.1f}, "
        f"{100 * values['lfm', 'relearner']:.1f} | {found['seconds']['lfm']:.0f} |",
    ):
        assert row in text
