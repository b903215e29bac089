"""What cannot run is refused before anything is written, in words that help."""

from __future__ import annotations

import json

import pytest
import torch

from mlo.cli import main
from problems import sources
from problems.datasets import cifar

from ..datasets.small_cifar import members, packed, records, small, written

USAGE, FAILED = 2, 1
"""Exit codes: a setting that does not fit, and data that do not."""

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@pytest.fixture(autouse=True)
def elsewhere(float64, monkeypatch, tmp_path):
    torch.set_default_dtype(torch.float32)
    monkeypatch.delenv("MLO_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "4000")  # no message is folded
    monkeypatch.chdir(tmp_path)
    sources._loaded.cache_clear()
    yield
    sources._loaded.cache_clear()


def programs(*names):
    return ["--programs", json.dumps(names)]


def refused(tmp_path, capsys, words, code=USAGE):
    """The message of a run that is refused and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", "reweighting", "--ticks", "2", *words, "--out", "out"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert printed.err.startswith("mlo: ")
    return " ".join(printed.err.split())


SETTINGS = {
    "a rate above 1": (["--rate", "1.5"], ["rate", "less than or equal to 1", "1.5"]),
    "a rate below 0": (["--rate", "-0.1"], ["rate", "greater than or equal to 0", "-0.1"]),
    "no imbalance at all": (["--imbalance", "0"], ["imbalance", "greater than 0", "'0'"]),
    "imbalance above 1": (["--imbalance", "2"], ["imbalance", "less than or equal to 1", "'2'"]),
    "an emptied class": (
        ["--imbalance", "0.001"],
        ["imbalance: 0.001", "every class to keep an example", "3 empty", "at least 0.00833"],
    ),
    "a validation set above a class": (
        ["--validation-per-class", "500"],
        ["class 0 has 178 examples", "500", "Change validation_per_class"],
    ),
    "a held-out set above a class": (
        ["--held-per-class", "500"],
        ["per_class", "fewer than the 124 examples of class 0", "found 500", "smaller"],
    ),
    "a training batch above the set": (
        ["--train-batch", "1248"],
        ["train_batch", "at most 1247", "seed 0", "got 1248", "choose a smaller batch"],
    ),
    "a validation batch above the set": (
        ["--valid-batch", "101"],
        ["valid_batch", "at most 100", "seed 0", "got 101", "choose a smaller batch"],
    ),
    "a batch above what thinning leaves": (
        ["--imbalance", "0.05", "--held-per-class", "100"],
        ["train_batch", "at most 64", "got 100", "choose a smaller batch"],
    ),
    "an unknown program": (
        programs("plain", "lmf"),
        ["programs", "'lfm'", "got 'lmf'", "did you mean 'lfm'?"],
    ),
    "no program": (programs(), ["programs", "at least 1"]),
    "a program twice": (
        programs("plain", "lfm", "plain"),
        ["programs: expected at least 1, and each once", "['plain', 'lfm', 'plain']"],
    ),
    "an unknown network": (
        ["--network.name", "resnet33"],
        ["classifier", "'resnet32'", "found 'resnet33'", "did you mean"],
    ),
    "an unknown encoder": (
        ["--lfm.encoder.name", "wrn-28-10"],
        ["encoder", "'resnet18'", "found 'wrn-28-10'"],
    ),
    "an unknown method": (
        ["--hypergradient", "one-stp"],
        ["hypergradient", "'one-step'", "got 'one-stp'", "did you mean 'one-step'?"],
    ),
    "l2rw with a solver": (
        [*programs("l2rw"), "--hypergradient", "conjugate-gradient"],
        ["hypergradient: expected", "with l2rw", "'conjugate-gradient'", "Choose one-step"],
    ),
    "a later seed that empties a class": (
        [*programs("class-balanced"), "--imbalance", "0.01", "--seeds", "6"],
        ["seed 1: counts: expected an example of every class"],
    ),
    "l2rw without lookahead": (
        [*programs("plain", "l2rw"), "--lookahead", "false"],
        ["lookahead: expected true with l2rw", "got false"],
    ),
    "an upper problem that never moves": (
        [*programs("learned-weights"), "--learned-weights.every", "3"],
        ["every: expected at most ticks = 2", "got 3", "never move"],
    ),
    "milestones that do not rise": (
        ["--training.milestones", "[0.5, 0.2]"],
        ["milestones: expected rising shares", "got [0.5, 0.2]"],
    ),
    "a milestone twice": (["--training.milestones", "[0.5, 0.5]"], ["rising", "[0.5, 0.5]"]),
    "a milestone at the end": (["--training.milestones", "[0.5, 1]"], ["excluded", "[0.5, 1.0]"]),
    "superclasses of digits": (
        ["--noise", "hierarchical"],
        ["superclasses", "'hierarchical'", "found none", "cifar100"],
    ),
    "images of MNIST-1D": (
        ["--dataset", "mnist1d", "--network.name", "resnet32"],
        ["expected images (C, H, W)", "found (1, 40)", "Choose another network"],
    ),
    "digits for VGG": (
        ["--network.name", "vgg19-bn"],
        ["32 x 32 pixels", "found (1, 8, 8)", "Choose another network, or larger images"],
    ),
    "weights that are not there": (
        ["--lfm.encoder-weights", "nowhere.pt"],
        ["lfm.encoder_weights", "nowhere.pt", "MLO_DATA"],
    ),
}
DATA = {"a validation set above a class"}
"""Of `SETTINGS`, those that are said to be about the data."""


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_run_are_refused(tmp_path, capsys, name):
    words, parts = SETTINGS[name]
    message = refused(tmp_path, capsys, words, FAILED if name in DATA else USAGE)
    for part in parts:
        assert part in message


UNNAMED = {
    "a held-out set above a class": "held_per_class",
    "an unknown network": "network.name",
    "an unknown encoder": "lfm.encoder.name",
    "superclasses of digits": "noise",
    "images of MNIST-1D": "network.name",
    "an upper problem that never moves": "learned_weights.every",
}


@pytest.mark.parametrize("name", UNNAMED)
def test_the_message_names_the_setting(tmp_path, capsys, name):
    assert UNNAMED[name] in refused(tmp_path, capsys, SETTINGS[name][0])


def test_an_unknown_program_is_the_only_complaint(tmp_path, capsys):
    assert "a setting does not fit" in refused(tmp_path, capsys, programs("lmf"))


@pytest.mark.parametrize(("name", "value"), [("data", "here"), ("image_size", "16")])
def test_what_digits_do_not_have_is_named_as_the_setting(tmp_path, capsys, name, value):
    words = [f"--{name.replace('_', '-')}", value]
    assert f"{name}: expected none" in refused(tmp_path, capsys, words)


WANTED = ["CIFAR-10", "cifar-10-binary.tar.gz", PAGE, "MLO_DATA"]


@pytest.mark.parametrize("where", ["unset", "empty", "elsewhere", "path"])
def test_a_data_set_that_is_not_there_is_asked_for(tmp_path, capsys, monkeypatch, where):
    (tmp_path / "there").mkdir()
    words, found = ["--dataset", "cifar10"], "not set"
    if where == "empty":
        monkeypatch.setenv("MLO_DATA", "there")
        found = "neither"
    elif where == "elsewhere":
        monkeypatch.setenv("MLO_DATA", "gone")
        found = "gone"
    elif where == "path":
        words += ["--data", "nowhere"]
        found = "nowhere"
    message = refused(tmp_path, capsys, words, FAILED)
    for part in (*WANTED, found):
        assert part in message


def test_a_truncated_file_is_refused(tmp_path, capsys, monkeypatch):
    layout = small("cifar10", monkeypatch)
    folder = written(tmp_path / layout.folder, records(layout))
    file = folder / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    message = refused(tmp_path, capsys, ["--dataset", "cifar10"], FAILED)
    size = 20 * 3073
    for part in (str(file), f"{size} bytes", f"{size - 1} bytes", "archive", PAGE):
        assert part in message


def test_an_archive_with_another_checksum_is_refused(tmp_path, capsys, monkeypatch):
    layout = small("cifar10", monkeypatch)
    found = packed(tmp_path / layout.archive, members(layout, records(layout)))
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    message = refused(tmp_path, capsys, ["--dataset", "cifar10"], FAILED)
    assert found != cifar.LAYOUTS["cifar10"].md5
    for part in (layout.archive, "MD5", layout.md5, found, PAGE):
        assert part in message


def test_settings_that_do_not_suit_cifar_are_refused(tmp_path, capsys, monkeypatch):
    layout = small("cifar10", monkeypatch)  # ten of each class
    written(tmp_path / layout.folder, records(layout))
    words = ["--dataset", "cifar10", "--data", str(tmp_path), "--valid-batch", "2"]
    words += ["--train-batch", "2"]
    message = refused(tmp_path, capsys, [*words, "--validation-per-class", "10"])
    assert "fewer than the 10 examples of class 0, found 10" in message
    more = ["--validation-per-class", "2", "--imbalance", "0.05"]
    assert "imbalance: 0.05" in refused(tmp_path, capsys, [*words, *more])
    more = ["--validation-per-class", "2", "--noise", "hierarchical"]
    assert "superclasses" in refused(tmp_path, capsys, [*words, *more])
