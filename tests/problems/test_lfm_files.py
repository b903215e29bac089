"""Learning From Mistakes on data of one's own, with an encoder that starts from a file."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch

from mlo.cli import main
from mlo.errors import ConfigurationError, DataError
from mlo.recipe import Carry
from mlo.recipe_run import Job, run_recipe
from mlo.recorded import read_run
from problems.datasets import load_digits
from problems.lfm import recipe as recipes
from problems.lfm.config import ReweightingConfig
from problems.lfm.programs import lfm_engine
from problems.lfm.recipe import recipe
from problems.lfm.task import make_task
from problems.models import conv_classifier, conv_encoder

from ..bombs import arrays_bombs, npz, torch_file, weights_bombs

CLASSES, CHANNELS = 3, 2
DRAW = np.random.default_rng(1)
X = DRAW.integers(0, 256, size=(60, CHANNELS, 9, 8), dtype=np.uint8)
Y = np.arange(60) % CLASSES
SMALL = {"ticks": 3, "seeds": 1, "width": 2, "features": 4, "evaluations": 1}
SMALL |= {"train_batch": 10, "valid_batch": 6, "validation_per_class": 2}
WORDS = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
RUN = ["run", "lfm-reweighting", *WORDS, "--quiet"]


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLO_DATA", raising=False)
    pathlib.Path("own.npz").write_bytes(npz(x=X, y=Y))
    torch.manual_seed(5)
    torch.save(encoder().state_dict(), "encoder.pt")
    return tmp_path


def encoder(**options):
    return conv_encoder(**{"channels": CHANNELS, "width": 2, "features": 4, **options})


def config(**settings):
    return ReweightingConfig(**{**SMALL, "data": "own.npz", **settings})


def test_a_run_from_the_command_line_with_both_files_ends_with_results(folder, capsys):
    files = ["--data", "own.npz", "--encoder-weights", "encoder.pt"]
    assert main([*RUN, *files, "--out", "run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "own.npz, flip noise 0.4" in printed.out
    run = read_run(folder / "run")
    assert run.complete
    assert run.config["data"] == str(folder / "own.npz")
    assert run.config["encoder_weights"] == str(folder / "encoder.pt")
    assert {stage.name for stage in run.stages} == {"plain", "plain+val", "LFM"}


def test_the_data_are_those_of_the_file_and_decide_the_sizes_of_the_networks():
    task = make_task(config(noise="none"), 0)
    images = torch.from_numpy(X).float() / 255
    parts = [task.train, task.valid, task.test]
    taken = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    assert task.classes == CLASSES
    assert len(taken[0]) == len(X)
    for image, label in zip(*taken, strict=True):
        (place,) = (images == image).flatten(1).all(1).nonzero()
        assert Y[place] == label


def test_a_class_that_noise_removes_from_the_labels_keeps_its_logit():
    chosen = config(rate=1.0)
    lost = (s for s in range(50) if int(make_task(chosen, s).train[1].max()) < CLASSES - 1)
    seed = next(lost)
    for stage in recipe.stages(chosen):
        problems = stage.setup(chosen, seed, Carry()).engine.problems
        for name in problems.keys() - {"validator"}:
            first, *_, last = problems[name].module
            assert (first.in_channels, last.out_features) == (CHANNELS, CLASSES)
    assert problems["validator"].module.encoder[0].in_channels == CHANNELS


def test_wrong_labels_are_drawn_among_the_classes_of_the_data():
    for noise, rate in (("flip", 1.0), ("uniform", 1.0)):
        labels = make_task(config(noise=noise, rate=rate), 0).train[1]
        assert 0 <= int(labels.min()) <= int(labels.max()) < CLASSES


def test_the_digits_from_a_file_give_the_results_of_the_digits_to_the_last_bit():
    x, y = (part.numpy() for part in load_digits())
    pathlib.Path("digits.npz").write_bytes(npz(x=x, y=y))
    settings = {"ticks": 3, "seeds": 1, "width": 2, "features": 4, "evaluations": 1}
    of_file = ReweightingConfig(**settings, data="digits.npz")
    found = [
        run_recipe(recipe, c, Job(quiet=True)) for c in (ReweightingConfig(**settings), of_file)
    ]
    assert found[0] == found[1]


def test_the_encoder_starts_from_the_file_and_nothing_else_does():
    before, after = (
        lfm_engine(c, 0, make_task(c, 0)).problems
        for c in (config(), config(encoder_weights="encoder.pt"))
    )
    written = torch.load("encoder.pt", weights_only=True)
    for name in before:
        one, other = (p[name].module.state_dict() for p in (before, after))
        for key in one:
            if name == "validator" and key.startswith("encoder."):
                expected = written[key.removeprefix("encoder.")]
                assert not torch.equal(one[key], other[key])
            else:
                expected = one[key]
            assert torch.equal(other[key], expected)


def complaint(words, capsys, code):
    assert main([*RUN, *words, "--out", "run"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert "\x1b" not in printed.err
    assert not pathlib.Path("run").exists()
    return " ".join(printed.err.split())


WEIGHTS = {
    "of other sizes": (encoder(width=3).state_dict(), "0.weight: expected float32 [2, 2, 3, 3]"),
    "of a classifier": (
        conv_classifier(CLASSES, channels=CHANNELS, width=2, features=4).state_dict(),
        "0 missing: none, and 2 others: '9.weight', '9.bias'",
    ),
    "of one channel": (encoder(channels=1).state_dict(), "found float32 [2, 1, 3, 3]"),
    "with batch norm": (encoder(batch_norm=True).state_dict(), "missing: "),
    "no weights": ([1], "found list"),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_do_not_fit_are_refused_before_there_is_a_folder(what, capsys):
    content, message = WEIGHTS[what]
    torch.save(content, "wrong.pt")
    words = ["--data", "own.npz", "--encoder-weights", "wrong.pt"]
    said = complaint(words, capsys, 1)
    assert said.startswith("mlo: encoder_weights: '")
    assert message in said


DATA = {
    "too few of a class": (
        {"x": X[:30], "y": np.eye(30, dtype=int)[3]},
        "class 1",
    ),
    "small images": ({"x": X[:, :, :7], "y": Y}, "at least 8 by 8 pixels, which the networks need"),
    "no labels": ({"x": X}, "the arrays 'x' and 'y', found 'x'"),
    "floating labels": ({"x": X, "y": Y * 1.0}, "y [N] of whole numbers"),
}


@pytest.mark.parametrize("what", DATA)
def test_data_that_do_not_suit_are_refused_before_there_is_a_folder(what, capsys):
    content, message = DATA[what]
    pathlib.Path("wrong.npz").write_bytes(npz(**content))
    said = complaint(["--data", "wrong.npz"], capsys, 1)
    assert message in said


def test_files_that_are_not_there_are_named_with_their_setting(capsys):
    words = ["--data", "absent.npz", "--encoder-weights", "absent.pt"]
    said = complaint(words, capsys, 2)
    assert "2 settings do not fit" in said
    assert "data: expected a file, found none at '" in said
    assert "encoder_weights: expected a file, found none at '" in said
    with pytest.raises(ConfigurationError, match="train_batch"):
        recipe.check(config(train_batch=1000))


def test_no_bomb_goes_off_from_the_command_line(folder, capsys):
    mark = folder / "mark"
    bombs = weights_bombs(mark, encoder().state_dict())
    for name, (data, _) in bombs.items():
        pathlib.Path("bomb").write_bytes(data)
        said = complaint(["--data", "own.npz", "--encoder-weights", "bomb"], capsys, 1)
        assert said.startswith("mlo: encoder_weights: '"), name
        assert not mark.exists(), name
    for name, (data, _) in arrays_bombs(mark, X, Y).items():
        pathlib.Path("bomb").write_bytes(data)
        said = complaint(["--data", "bomb"], capsys, 1)
        assert said.startswith("mlo: data: '"), name
        assert not mark.exists(), name


def test_no_bomb_among_the_files_of_a_run_goes_off_when_it_is_resumed(folder, capsys):
    assert main([*RUN, "--data", "own.npz", "--out", "run"]) == 0
    state = json.loads((folder / "run" / "run.json").read_text())
    (folder / "run" / "run.json").write_text(json.dumps({**state, "status": "interrupted"}))
    mark = folder / "mark"
    carries = sorted((folder / "run").rglob("carry.pt"))
    assert len(carries) == 3
    capsys.readouterr()
    for carry in carries:
        whole = carry.read_bytes()
        for data, _ in weights_bombs(mark, {}).values():
            carry.write_bytes(data)
            assert main(["run", "--resume", "run", "--quiet"]) == 1
            assert "carry: cannot read" in " ".join(capsys.readouterr().err.split())
        carry.write_bytes(whole)
    assert not mark.exists()


def test_a_run_is_resumed_from_another_folder_with_the_same_files(folder, monkeypatch, capsys):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("MLO_DATA", str(elsewhere))
    (elsewhere / "later.pt").write_bytes(torch_file(encoder().state_dict()))
    files = ["--data", "own.npz", "--encoder-weights", "later.pt"]
    assert main([*RUN, *files, "--out", "whole"]) == 0
    calls = []

    def cut(*args):
        calls.append(args)
        if len(calls) == 2:  # the first one is the check before the run
            raise KeyboardInterrupt
        return lfm_engine(*args)

    with monkeypatch.context() as patched:
        patched.setattr(recipes, "lfm_engine", cut)
        assert main([*RUN, *files, "--out", "cut"]) == 130
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("MLO_DATA")
    assert main(["run", "--resume", str(folder / "cut"), "--quiet"]) == 0
    for name in ("config.json", "metrics.csv", "results.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_a_name_of_a_file_is_no_markup(folder, capsys):
    (folder / "odd[red].npz").write_bytes(npz(x=X, y=Y))
    assert main([*RUN, "--data", "odd[red].npz", "--out", "run"]) == 0
    assert "odd[red].npz, flip noise" in capsys.readouterr().out


def test_a_file_that_changes_between_check_and_stage_is_refused_all_the_same(folder):
    chosen = config(encoder_weights="encoder.pt")
    (folder / "encoder.pt").write_bytes(b"no longer")
    with pytest.raises(DataError, match="encoder_weights: "):
        recipe.engine(chosen, 0)
    (folder / "own.npz").unlink()
    with pytest.raises(DataError, match=r"data: .*no file that can be read"):
        recipe.engine(chosen, 0)
