"""What cannot run is refused before anything is written, in words that help."""

from __future__ import annotations

import json

import pytest
import torch

from mlo.cli import main

USAGE = 2


@pytest.fixture(autouse=True)
def elsewhere(float64, monkeypatch, tmp_path):
    torch.set_default_dtype(torch.float32)
    monkeypatch.delenv("MLO_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "4000")  # no message is folded
    monkeypatch.chdir(tmp_path)


CELLS = ["--space", "cell", "--search.layers", "3"]
SETTINGS = {
    "an unknown operation": (
        ["--operations", "skip_connect,conv_3x4"],
        ["operations", "'conv_3x3'", "found 'conv_3x4'", "did you mean 'conv_3x3'?"],
    ),
    "no operations": (["--operations", "[]"], ["operations", "at least one operation"]),
    "only none": ([*CELLS, "--operations", '["none"]'], ["other than 'none'", "found 0"]),
    "none in a chain": (["--operations", '["none", "conv_3x3"]'], ["layer 0", "other than 'none'"]),
    "an unknown program": (
        ["--programs", "lfm,drats"],
        ["programs", "got 'drats'", "did you mean 'darts'?"],
    ),
    "a program twice": (["--programs", "lfm,lfm"], ["programs: expected at least 1, and each"]),
    "no genotype": (["--programs", "given"], ["genotype: expected one with the program 'given'"]),
    "an unknown genotype": (
        ["--programs", "given", "--genotype", "darts-v3"],
        ["genotype", "'darts-v2'", "got 'darts-v3'; did you mean 'darts-v"],
    ),
    "a genotype that needs larger inputs": (
        ["--programs", "given", "--genotype", "darts-v2", "--evaluation.stem", "imagenet"],
        ["evaluation: genotype: expected inputs of at least 32 places a side", "(1, 8, 8)"],
    ),
    "a network that needs larger inputs than the search": (
        [*CELLS, "--programs", "darts-first-order", "--evaluation.stem", "imagenet"],
        ["evaluation: genotype: expected inputs of at least 32 places a side", "(1, 8, 8)"],
    ),
    "a folder as a genotype": (
        ["--programs", "given", "--genotype", "."],
        ["genotype", "a file", "got '.'"],
    ),
    "a damaged genotype": (
        ["--programs", "given", "--genotype", "Genotype(normal=[('sep_conv_3x3', 1)])"],
        ["genotype"],
    ),
    "a chain that is not as long as the network": (
        [
            *("--programs", "given", "--evaluation.layers", "5", "--genotype"),
            json.dumps({"kind": "macro", "layers": ["conv_3x3"] * 4}),
        ],
        ["genotype", "5", "4"],
    ),
    "an auxiliary head at a chain": (
        ["--programs", "random", "--evaluation.auxiliary", "true"],
        ["evaluation", "auxiliary"],
    ),
    "an auxiliary head at small images": (
        [*CELLS, "--programs", "random", "--evaluation.auxiliary", "true"],
        ["evaluation", "auxiliary"],
    ),
    "drop path in a chain": (
        ["--programs", "random", "--evaluation.drop-path", "0.2"],
        ["drop_path"],
    ),
    "a batch above a share": (
        ["--search.train-batch", "5000"],
        ["search.train_batch: expected at most 673", "got 5000"],
    ),
    "an architecture that never moves": (
        ["--search.lfm.every", "3"],
        ["search.lfm.every: expected at most search.ticks = 2", "got 3"],
    ),
    "an unknown method": (
        ["--hypergradient", "one-stp"],
        ["hypergradient", "got 'one-stp'", "did you mean 'one-step'?"],
    ),
    "a floor above a rate": (
        ["--search.lfm.floor", "0.05"],
        ["floor: expected at most the smallest rate, 0.01", "found 0.05"],
    ),
    "cells without a normal one": (
        ["--space", "cell", "--search.layers", "2", "--evaluation.layers", "3"],
        ["search.layers: expected at least 3 with cells", "got 2"],
    ),
    "a cutout that nobody makes": (
        ["--evaluation.cutout", "4"],
        ["evaluation.cutout: expected none where images are not augmented", "got 4 with 'digits'"],
    ),
    "a data folder for digits": (["--data", "."], ["data: expected none for 'digits'"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_run_are_refused(name, tmp_path, capsys):
    options, words = SETTINGS[name]
    # What is not refused by mistake should be over soon.
    tiny = ["--search.ticks", "2", "--evaluation.ticks", "2", "--search.channels", "1"]
    tiny += ["--seeds", "1", "--evaluation.channels", "2", "--quiet"]
    assert main(["run", "nas", *tiny, *options, "--out", "out"]) == USAGE
    printed = capsys.readouterr()
    assert (printed.out, list(tmp_path.rglob("*"))) == ("", [])
    assert printed.err.startswith("mlo: ")
    for word in words:
        assert word in " ".join(printed.err.split()), (word, printed.err)
