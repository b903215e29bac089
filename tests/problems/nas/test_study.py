"""The study: budgets, choices by held-out examples, and tables of known numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch

from problems.nas.genotype import MacroGenotype, read_genotype
from problems.nas.study import benchmark, candidates, rendering
from problems.nas.study.benchmark import _Running
from problems.nas.study.compute import given, operations, training_operations
from problems.nas.study.plan import BUDGET, COMMON, RATES, SEARCHES, TUNED
from problems.nas.study.trial import run_trial
from problems.studying import Kept, StudySettings, counting


@pytest.fixture(autouse=True)
def single_precision(float64):
    torch.set_default_dtype(torch.float32)


def chain(name):
    return MacroGenotype(layers=(name,) * 6).to_json()


def test_random_candidates_use_the_budget_up_and_no_more():
    budget = 40e9
    found = candidates.random_candidates(3, budget)
    spent = [c.ticks * training_operations(c.genotype) for c in found]
    assert sum(spent) <= budget
    more = candidates.random_candidates(3, 4 * budget)
    assert more[: len(found)] == found
    following = more[len(found)]
    assert sum(spent) + following.ticks * training_operations(following.genotype) > budget
    assert candidates.random_candidates(4, budget) != found
    assert len(candidates.random_candidates(3, 0.0)) == 1


def test_each_single_operation_gets_the_same_share():
    found = candidates.single_candidates(8e9)
    assert {len(set(read_genotype(c.genotype).layers)) for c in found} == {1}
    assert len({c.genotype for c in found}) == len(found) == 8
    for candidate in found:
        spent = candidate.ticks * training_operations(candidate.genotype)
        assert spent == pytest.approx(1e9, rel=0.1)
    longest = candidates.single_candidates(8e15)
    assert {candidate.ticks for candidate in longest} == {COMMON["evaluation"]["ticks"]}


def test_operations_are_those_of_the_layers():
    """A 1 x 1 and a 3 x 3 chain differ by the other two taps, forward and backward."""
    length, channels, batch = (40, 40, 20, 20, 10, 10), (8, 8, 16, 16, 32, 32), 64
    taps = sum(n * c * c for n, c in zip(length, channels, strict=True))
    # Of 2 operations a product; forward, by the weights and by the inputs.
    expected = 3 * 2 * batch * taps * 2
    difference = training_operations(chain("conv_3x3")) - training_operations(chain("conv_1x1"))
    assert difference == expected


class Bare:
    """Progress that nobody sees."""

    def add_task(self, *_, **__):
        return 0

    def advance(self, _):
        pass


def test_searches_get_as_many_operations_as_the_one_that_sets_the_budget():
    study = _Running(StudySettings(), Kept(None), Bare())
    costs = {"LFM": 1370, "LFM, finite differences": 1225, "DARTS": 679, "DARTS, first order": 303}
    budget = COMMON["search"]["ticks"] * costs[BUDGET]
    for method, cost in costs.items():
        assert study.ticks(method, costs) * cost == pytest.approx(budget, rel=0.005)


def fake_run(accuracies):
    """Runs that are over at once; their accuracy is a function of the settings."""
    made = []

    def run(function, trials, kept, *, workers, done):
        assert function is run_trial
        made.extend(trials)
        return iter([{**accuracies(t.settings, t.seed)} for t in trials])

    return made, run


def test_rates_are_chosen_on_held_out_examples_of_other_seeds(monkeypatch):
    best = {"lfm": RATES[2], "darts": RATES[0]}

    def accuracies(settings, seed):
        (program,) = settings["programs"]
        section = {"lfm": "lfm", "darts": "architecture"}[program]
        return {"accuracy": 0.9 - abs(settings["search"][section]["rate"] - best[program])}

    made, run = fake_run(accuracies)
    monkeypatch.setattr(benchmark, "run_all", run)
    study = _Running(StudySettings(), Kept(None), Bare())
    tuned = study.tune({name: 1000 for name in SEARCHES})
    assert {t["method"]: t["rate"] for t in tuned} == {"LFM": RATES[2], "DARTS": RATES[0]}
    assert all(trial.settings["evaluation"]["on"] == "search" for trial in made)
    assert {trial.seed for trial in made} == {900, 901}
    assert len(made) == len(TUNED) * len(RATES) * 2


def test_candidates_are_compared_on_held_out_examples_and_the_best_is_trained(monkeypatch):
    monkeypatch.setattr(benchmark, "training_operations", lambda _: 1000)
    monkeypatch.setattr(candidates, "training_operations", lambda _: 1000)

    def accuracies(settings, seed):
        names = read_genotype(settings["genotype"]).layers
        return {"accuracy": names.count("conv_5x5") / 6, "genotype": settings["genotype"]}

    made, run = fake_run(accuracies)
    monkeypatch.setattr(benchmark, "run_all", run)
    study = _Running(StudySettings(seeds=2), Kept(None), Bare())
    results = {r["method"]: r["runs"] for r in study.without_supernet(1000 * 150 * 20)}
    single = results["best single operation"]
    assert [read_genotype(r["genotype"]).layers for r in single] == [("conv_5x5",) * 6] * 2
    for run in results["random search"]:
        tried = run["tried"]
        assert len(tried["genotypes"]) == 20
        assert run["accuracy"] == max(tried["accuracies"])
    finals = [t for t in made if "on" not in t.settings["evaluation"]]
    assert len(finals) == 2 * 3
    assert {t.settings["evaluation"]["ticks"] for t in finals} == {COMMON["evaluation"]["ticks"]}


def test_a_run_says_what_was_found_and_how_the_search_went():
    own = {"search": {"ticks": 4}, "evaluation": {"ticks": 3}, "evaluations": 2}
    found = run_trial({**own, "programs": ["darts-first-order"]}, 0)
    assert set(found["seconds"]) == {"darts-first-order search", "darts-first-order evaluation"}
    assert found["search"]["ticks"] == [0, 2, 4]
    assert len(found["search"]["skips"]) == 3
    assert 0 <= found["accuracy"] <= 1
    again = run_trial({**own, **given(found["genotype"])}, 0)
    assert again["accuracy"] == found["accuracy"]
    assert "search" not in again


def test_a_run_that_diverges_is_told_and_ends_nothing():
    own = {"evaluation": {"ticks": 6, "training": {"learning_rate": 1e30, "clip_norm": None}}}
    found = run_trial({**own, **given(chain("conv_3x3")), "evaluations": 1}, 0)
    assert set(found) == {"failed"}


def numbers():
    genotype = chain("conv_3x3")
    search = {"ticks": [0, 4], "skips": [0, 1]}
    lfm = [{"accuracy": a, "parameters": 10, "genotype": genotype} for a in (0.9, 0.8, 0.7)]
    other = [{**run, "accuracy": run["accuracy"] - 0.1, "search": search} for run in lfm[:2]]
    return {
        "seeds": [0, 1, 2],
        "tuning_seeds": [900],
        "tuned": [{"method": "LFM", "accuracies": [0.1, "NaN", 0.3], "rate": RATES[2]}],
        "operations_of_a_tick": {"LFM": 2e9},
        "search_ticks": {"LFM": 3},
        "results": [
            {"method": "LFM", "runs": lfm},
            {"method": "DARTS", "runs": [*other, {"failed": "NaN"}]},
        ],
    }


def test_tables_say_what_the_numbers_say():
    found = numbers()
    rows = rendering.accuracy_rows(found)
    error = 10 / math.sqrt(3)
    assert rows[1][:2] == ["LFM", f"**80.0 ({error:.1f})**"]
    assert rows[2][:3] == ["DARTS", "75.0 (5.0), 1 of 3 failed", "10.0 (0.0), 1 of 3 failed"]
    assert rendering.seed_rows(found)[2] == ["DARTS", "80.0", "70.0", "nan"]
    assert rendering.choice_rows(found)[1:] == [["LFM", "18", ""], ["DARTS", "12", "1"]]
    assert rendering.tuned_rows(found)[1] == ["LFM", "10.0", "nan", "**30.0**"]
    assert rendering.compute_rows(found)[1] == ["LFM", "3", "2.00", "6"]
    assert rendering.genotype_rows(found)[-1] == ["DARTS", "2", "failed", "nan"]
    assert json.dumps(rendering.notes(found))


def test_the_budget_is_counted_on_the_search_alone():
    assert operations({"programs": ["darts-first-order"]}) == operations(
        {"programs": ["darts-first-order"], "evaluation": {"channels": 3}}
    )


def test_bars_count():
    import io

    import rich.console

    with counting(rich.console.Console(file=io.StringIO())) as progress:
        task = progress.add_task("runs", total=2)
        progress.advance(task)
        assert progress.tasks[0].completed == 1
