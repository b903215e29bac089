"""What is looked at and handed on, computed anew from the final networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlo.cli import main
from problems.datasets import load_data_set
from problems.reweighting.recipe import BUILDS, describe, recipe
from problems.reweighting.scene import Scene

from .small_recipe import config, counted, evaluating, repeat, start, task_of

ALL = [*BUILDS]
NETWORKS = {name: ["classifier"] for name in ALL}
NETWORKS |= {"ensemble": ["members"], "lfm": ["learner", "relearner"]}
SETTINGS = {
    "ticks": 12,
    "training": {"learning_rate": 0.2},
    "network": {"width": 3, "features": 8, "batch_norm": True},
    "meta_weight_net": {"rate": 0.05, "hidden": 6},
    "imbalance": 0.5,
    "train_batch": 100,
}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def made():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    settings = config(*ALL, **SETTINGS)
    found = settings, repeat(settings, 2), task_of(settings, 2)
    torch.set_default_dtype(before)
    return found


@pytest.mark.parametrize("name", ALL)
def test_accuracies_and_confusion_are_those_of_the_final_networks(made, name):
    _, done, task = made
    stage = done[name]
    kept = stage.handed[name]
    assert [*kept["confusion"]] == NETWORKS[name]
    for problem in NETWORKS[name]:
        counts = counted(stage.module(problem), task.test)
        assert kept["confusion"][problem].tolist() == counts.tolist()
        assert counts.sum(1).tolist() == task.test[1].bincount(minlength=10).tolist()
        found = stage.result.last(problem)
        assert found == pytest.approx(
            {
                "accuracy": counts.trace() / counts.sum(),
                "worst class": (counts.diagonal() / counts.sum(1)).min(),
            },
            abs=1e-15,
        )
        looks = [e.tick + 1 for e in stage.result.evaluations if e.name == problem]
        assert looks == ([2, 4, 5] if name == "fine-tuning" else [4, 8, 12])
        assert stage.module(problem).training


def test_the_worst_class_is_the_one_with_the_lowest_accuracy():
    settings = config("plain", noise="none", ticks=200, train_batch=100)
    done, task = repeat(settings), task_of(settings)
    counts = counted(done["plain"].module("classifier"), task.test)
    shares = counts.diagonal() / counts.sum(1)
    assert 0.01 < shares.min() < shares.mean() < 1
    found = done["plain"].result.last("classifier")
    assert found["worst class"] == pytest.approx(shares.min(), abs=1e-15)
    assert found["accuracy"] == pytest.approx(counts.trace() / counts.sum(), abs=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_the_data_that_are_handed_on_are_those_of_the_task(made, name):
    _, done, task = made
    kept = done[name].handed[name]
    assert kept["data"]["source"] == "digits"
    assert kept["data"]["fingerprint"] == load_data_set("digits").fingerprint
    assert kept["data"]["counts"] == task.train[1].bincount(minlength=10).tolist()
    assert torch.equal(kept["data"]["transition"], task.transition)
    weighs = name in ("meta-weight-net", "learned-weights", "lfm")
    assert ({"weights", "labels", "corrupted"} <= set(kept)) is weighs
    assert ("weights" in {e.name for e in done[name].result.evaluations}) is weighs
    if weighs:
        assert torch.equal(kept["labels"], task.train[1])
        assert torch.equal(kept["corrupted"], task.corrupted)
        assert 0.3 < task.corrupted.double().mean() < 0.5
    assert set(done[name].handed) == {name} | ({"plain network"} if name == "plain" else set())


def weights_by_hand(name, stage, task, settings):
    x, labels = task.train
    if name == "learned-weights":
        return 1 / (1 + np.exp(-stage.module("weights").logits.detach().double().numpy()))
    if name == "meta-weight-net":
        with evaluating(stage.module("classifier")):
            logits = stage.module("classifier")(x)
        chances = F.softmax(logits.double(), 1)[torch.arange(len(labels)), labels]
        losses = -chances.log().numpy()
        w, b, v, c = (p.detach().double().numpy() for p in stage.module("weight_net").parameters())
        hidden = np.maximum(losses[:, None] @ w.T + b, 0)
        return 1 / (1 + np.exp(-(hidden @ v.T + c)[:, 0]))
    validator, learner = stage.module("validator"), stage.module("learner")
    with evaluating(learner), evaluating(validator):
        logits = learner(task.valid[0]).double()
        e, f = (validator.encoder(part).double() for part in (x, task.valid[0]))
    chances = F.softmax(logits, 1)[torch.arange(len(logits)), task.valid[1]]
    u = -chances.log().numpy()
    e, f = (v.numpy() / np.linalg.norm(v.numpy(), axis=1, keepdims=True) for v in (e, f))
    s = np.exp(e @ f.T / settings.lfm.temperature)
    s /= s.sum(1, keepdims=True)
    z = labels.numpy()[:, None] == task.valid[1].numpy()[None]
    r = validator.coefficients.detach().double().numpy()
    return 1 / (1 + np.exp(-(s * z) @ (r * u)))


@pytest.mark.parametrize("name", ["meta-weight-net", "learned-weights", "lfm"])
def test_weights_are_those_of_the_final_networks(made, name):
    settings, done, task = made
    stage = done[name]
    expected = weights_by_hand(name, stage, task, settings)
    found = stage.handed[name]["weights"]
    assert found.shape == task.train[1].shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5)
    assert expected.std() > 1e-4
    wrong = task.corrupted.numpy()
    last = stage.result.last("weights")
    assert last["clean"] == pytest.approx(expected[~wrong].mean(), rel=1e-5)
    assert last["corrupted"] == pytest.approx(expected[wrong].mean(), rel=1e-5)
    assert abs(last["clean"] / last["corrupted"] - 1) > 1e-4  # they are told apart


@pytest.mark.parametrize("name", ["meta-weight-net", "learned-weights", "lfm"])
def test_weights_of_mean_one_have_it_over_the_whole_set(name):
    own = {name.replace("-", "_"): {"unit_mean": True}}
    settings = config(name, ticks=3, noise="none", **own)
    stage = repeat(settings)[name]
    weights = stage.handed[name]["weights"]
    assert weights.double().mean().item() == pytest.approx(1, abs=1e-6)
    # Where no label is wrong there are no weights of wrong ones.
    assert set(stage.result.last("weights")) == {"clean"}
    assert not stage.handed[name]["corrupted"].any()


def test_held_out_examples_are_looked_at_in_the_place_of_the_test_set():
    settings = config("plain", held_per_class=12)
    done, task = repeat(settings), task_of(settings)
    counts = done["plain"].handed["plain"]["confusion"]["classifier"]
    assert counts.sum(1).tolist() == [12] * 10
    assert counts.tolist() == counted(done["plain"].module("classifier"), task.test).tolist()
    assert sum(done["plain"].handed["plain"]["data"]["counts"]) == 1247 - 120
    assert "held-out" in " ".join(recipe.notes(settings))
    assert "test" in " ".join(recipe.notes(config("plain")))
    assert "held-out" not in " ".join(recipe.notes(config("plain")))


def test_looking_changes_nothing():
    settings = config("plain", "lfm", ticks=4)
    looked = repeat(settings)
    for stage in recipe.stages(settings):
        with stage.seeded(0):
            made = stage.built(settings, 0, None)
            made.engine.run(stage.ticks)
        for name, problem in made.engine.problems.items():
            one, two = problem.module.state_dict(), looked[stage.name].module(name).state_dict()
            assert all(torch.equal(one[key], two[key]) for key in one)


def test_labels_and_networks_of_a_scene_are_described():
    settings = config("plain", noise="uniform", rate=0.6, imbalance=0.02)
    assert describe(settings) == "digits, uniform noise 0.6, imbalance 50"
    assert describe(config("plain", noise="none")) == "digits, no label noise"
    assert describe(config("plain", rate=0)) == "digits, no label noise"
    scene = Scene(config("plain", network={"width": 5, "features": 7, "batch_norm": True}), 0)
    names = [type(m).__name__ for m in scene.classifier().modules()]
    assert "BatchNorm2d" in names
    sizes = {p.shape[0] for p in scene.classifier().parameters()}
    assert {5, 7} <= sizes
    assert start(0, 5).state_dict().keys() != scene.classifier().state_dict().keys()


def test_results_and_report_say_what_the_data_were(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--programs", "plain", "--ticks", "2", "--seeds", "1", "--quiet"]
    assert main(["run", "reweighting", *words, "--out", str(tmp_path / "run")]) == 0
    about = "digits, flip noise 0.4"
    assert about in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["about"] == about
    assert main(["report", str(tmp_path / "run")]) == 0
    assert about in (tmp_path / "run" / "report.html").read_text()
