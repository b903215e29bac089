"""A whole run of Learning From Mistakes in its folder, cut off and resumed, and made again."""

from __future__ import annotations

import json

import pytest
import torch

import mlo
from mlo.configuration import configure
from mlo.metrics import by_key, summary
from mlo.recipe_run import Job, carry_out, run_recipe
from mlo.recorded import read_run
from mlo.run_folder import RunFolder
from problems.lfm.config import ReweightingConfig
from problems.lfm.recipe import recipe

SETTINGS = {"ticks": 8, "seeds": 2, "width": 4, "features": 8, "evaluations": 4}
STAGES = {"plain": 1, "plain+val": 1, "LFM": 3}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def run(path, config, *callbacks, resumed=False):
    with RunFolder.resume(path) if resumed else RunFolder.create(path) as folder:
        if not resumed:
            folder.begin(recipe.name, config, {s.name: s.ticks for s in recipe.stages(config)})
        return carry_out(recipe, config, Job(folder=folder, quiet=True, watch=lambda _: callbacks))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path, dtype = tmp_path_factory.mktemp("lfm") / "run", torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    found = run(path, ReweightingConfig(**SETTINGS))
    torch.set_default_dtype(dtype)
    return path, found


def test_records_are_a_start_all_ticks_the_evaluations_and_an_end(finished):
    path, _ = finished
    for seed in (0, 1):
        for (name, looks), place in zip(STAGES.items(), ("plain", "plain-val", "lfm"), strict=True):
            text = (path / f"seed-{seed}" / place / "records.jsonl").read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            kinds = [line["kind"] for line in lines]
            assert kinds == ["start", *(["tick"] * 2 + ["evaluation"] * looks) * 4, "end"]
            moved = ["learner", "relearner", "validator"] if name == "LFM" else ["learner"]
            assert lines[0]["problems"] == moved
            assert (lines[-1]["status"], lines[-1]["ticks"]) == ("completed", 8)
            ticks = [line for line in lines if line["kind"] == "tick"]
            assert [line["tick"] for line in ticks] == list(range(8))
            for tick in ticks:
                assert {move["problem"] for move in tick["moves"]} == set(moved)
                assert all(m["loss"] > 0 and m["gradient_norm"] > 0 for m in tick["moves"])


def test_the_results_are_the_last_evaluations_of_the_records(finished):
    path, metrics = finished
    results = json.loads((path / "results.json").read_text())["metrics"]
    assert results == summary(metrics)
    for stage in read_run(path).stages:
        for metric in stage.metrics:
            of = [e for e in stage.evaluations if e["name"] == metric.evaluation]
            assert [e["tick"] for e in of] == [1, 3, 5, 7]
            assert of[-1]["metrics"][metric.name] == metric.value
            assert by_key(metrics)[metric.key][stage.seed] == metric.value


def test_the_written_configuration_reproduces_every_number(finished, tmp_path):
    path, metrics = finished
    written = json.loads((path / "config.json").read_text())
    assert (written["ticks"], written["temperature"], written["hypergradient"]) == (
        *(8, 0.1),
        "one-step",
    )
    config = configure(ReweightingConfig, written, title="lfm")
    assert run(tmp_path / "again", config) == metrics
    for name in ("config.json", "metrics.csv", "results.json"):
        assert (tmp_path / "again" / name).read_bytes() == (path / name).read_bytes()


@pytest.mark.parametrize("stage", [0, 2, 4])
def test_a_run_that_was_interrupted_goes_on_to_the_same_numbers(finished, tmp_path, stage):
    path, metrics = finished
    begun = []

    class Cut(mlo.Callback):
        def on_start(self, record):
            begun.append(record)

        def on_tick(self, record):
            if (len(begun), record.tick) == (stage + 1, 5):
                raise KeyboardInterrupt

    config, other = ReweightingConfig(**SETTINGS), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(other, config, Cut())
    found = read_run(other)
    assert found.status.startswith(f"interrupted (KeyboardInterrupt): {stage} of 6 stages are over")
    assert len(found.stages) == stage + 1
    assert run(other, config, resumed=True) == metrics
    for name in ("metrics.csv", "results.json"):
        assert (other / name).read_bytes() == (path / name).read_bytes()


def test_another_setting_gives_other_numbers(finished):
    config = ReweightingConfig(**{**SETTINGS, "seeds": 1, "encoder_rate": 0.1})
    other = by_key(run_recipe(recipe, config, Job(quiet=True)))
    found = by_key(finished[1])
    key = ("LFM", "weights", "corrupted")
    assert other[key][0] != found[key][0]
    assert other["plain", "learner", "accuracy"][0] == found["plain", "learner", "accuracy"][0]
