"""Mistakes on the command line: named with the cure, on the error stream, and nothing is made."""

from __future__ import annotations

import pytest

from mlo.cli import main

from .called import joined

WRONG = {
    "": ("expected a command", "'list', 'run', 'graph', 'check', 'report', 'bench'"),
    "lst": ("'lst'", "did you mean 'list'"),
    "--verson": ("'--verson'", "did you mean '--version'"),
    "list extra": ("extra",),
    "run": ("recipe", "'lfm-reweighting'"),
    "run --quiet": ("recipe",),
    "run --seeds 3 lfm-reweighting": ("the recipe comes first", "'--seeds'"),
    "run --quiet lfm-reweighting": ("the recipe comes first",),
    "run lfm-reweightin": ("'lfm-reweightin'", "did you mean 'lfm-reweighting'"),
    "run lfm-reweighting --seed 3": ("'--seed'", "did you mean '--seeds'"),
    "run lfm-reweighting --batch_norm yes": ("'--batch_norm'", "'--batch-norm'"),
    "run lfm-reweighting --bacth-norm=yes": ("'--bacth-norm'", "'--batch-norm'"),
    "run lfm-reweighting word": ("extra argument", "word"),
    "run lfm-reweighting --seeds": ("'--seeds'", "requires an argument"),
    "run lfm-reweighting --seeds x": ("seeds:", "integer", "'x'"),
    "run lfm-reweighting --noise flop": ("noise:", "'flop'", "did you mean 'flip'"),
    "run lfm-reweighting --set nois=flip": ("nois:", "did you mean 'noise'"),
    "run lfm-reweighting --hypergradient onestep": ("'onestep'", "did you mean 'one-step'"),
    "run lfm-reweighting --noise flop --rate 3": ("2 settings", "noise:", "rate:"),
    "run lfm-reweighting --validator-every 999": ("validator_every:", "ticks = 400"),
    "run lfm-reweighting --config absent.toml": ("'absent.toml'", "No such file"),
    "run lfm-reweighting --preset quik": ("--preset", "'quik'", "did you mean 'quick'"),
    "run lfm-reweighting --set ticks": ("--set", "KEY=VALUE", "'ticks'"),
    "run --resume absent": ("'absent/run.json'", "No such file"),
    "run --resume": ("'--resume'", "requires an argument"),
    "run --resume old --rate 3": ("--resume", "recipe and settings", "leave out"),
    "run --resume=old --rate 3": ("--resume", "recipe and settings", "leave out"),
    "run --resume old tiny": ("--resume", "recipe and settings", "leave out"),
    "run --resume old --out new": ("--resume", "recipe and settings", "leave out"),
    "run tiny --resume old": ("--resume", "recipe and settings", "leave out"),
    "run tiny --resume=old --rate x": ("--resume", "recipe and settings", "leave out"),
    "graph lfm-reweighting --formt svg": ("'--formt'", "did you mean '--format'"),
    "graph lfm-reweighting --format pdf": ("'pdf'", "'text', 'mermaid', 'svg'"),
    "graph lfm-reweighting --stage plai": ("'plai'", "did you mean 'plain'"),
    "check lfm-reweighting --stage plai": ("'plai'", "did you mean 'plain'"),
    "graph": ("recipe",),
    "check --after 3": ("recipe",),
    "check tin": ("recipe", "did you mean 'tiny'"),
    "report": ("'DIR...'",),
    "report absent": ("'absent/run.json'",),
    "bench engne-cost": ("'engne-cost'", "benchmark"),
    "bench --out x": ("the benchmark comes first",),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_named_with_the_cure_on_the_error_stream(capsys, tiny, words):
    before = sorted(tiny.rglob("*.json"))
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mlo: ")
    for text in WRONG[words]:
        assert text in joined(printed.err)
    assert sorted(tiny.rglob("*.json")) == before
    assert not (tiny / "runs").exists()


UNFIT = {
    "--valid-batch 200": ("valid_batch", "100"),
    "--train-batch 5000": ("train_batch", "5000"),
    "--imbalance 0.001": ("imbalance", "0.001"),
    "--validation-per-class 200": ("validation_per_class", "200"),
    "--device gpu": ("device", "'gpu'"),
}


@pytest.mark.parametrize("option", UNFIT)
def test_a_setting_that_does_not_fit_the_data_is_named_and_no_folder_is_made(capsys, tiny, option):
    words = ["run", "lfm-reweighting", "--ticks", "1", "--out", "new", *option.split()]
    assert main(words) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    error = joined(printed.err).replace("-", "_")
    assert all(text in error for text in UNFIT[option])
    assert not (tiny / "new").exists()


def test_a_wrong_setting_makes_no_folder(tiny):
    assert main(["run", "tiny", "--rate", "fast", "--out", "new"]) == 2
    assert not (tiny / "new").exists()
