"""What a run of the recipe leaves, and what the other commands make of it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import torch

from mlo.cli import main
from problems.nas.genotype import read_genotype
from problems.nas.pictures import genotype_line

SIZES = [
    *("--search.channels", "1", "--search.layers", "3", "--search.train-batch", "6"),
    *("--search.valid-batch", "5", "--evaluation.batch", "7", "--evaluation.channels", "2"),
    *("--operations", "skip_connect,conv_1x1,avg_pool_3x3"),
]
TICKS = ["--search.ticks", "3", "--evaluation.ticks", "2", "--evaluations", "2", "--seeds", "1"]
PROGRAMS = ["darts-first-order", "random"]


@pytest.fixture(autouse=True)
def float32(float64, monkeypatch):
    torch.set_default_dtype(torch.float32)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run; what was printed is beside it."""
    pytest.importorskip("matplotlib")
    path, before = tmp_path_factory.mktemp("made") / "run", torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    words = ["--programs", ",".join(PROGRAMS), "--first-seed", "4", *SIZES, *TICKS]
    assert main(["run", "nas", *words, "--quiet", "--out", str(path)]) == 0
    torch.set_default_dtype(before)
    return path


def test_pictures_are_in_the_folder_and_in_the_report(made):
    names = {path.name for path in (made / "plots").iterdir()}
    expected = {
        *(f"genotype-{program}-seed-4" for program in PROGRAMS),
        "mixing-darts-first-order-seed-4",
        "skip-connections",
    }
    for name in expected:
        assert {f"{name}.png", f"{name}.svg"} <= names
        assert (made / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        ElementTree.fromstring((made / "plots" / f"{name}.svg").read_text())
    assert main(["report", str(made)]) == 0
    page = (made / "report.html").read_text()
    for program in PROGRAMS:
        assert f"chain of 3 layers: found by {program}, seed 4" in page
    assert "darts-first-order, seed 4" in page


def test_the_genotype_of_the_search_is_the_one_that_is_trained(made):
    kept = {
        path.parent.name: torch.load(path, weights_only=True) for path in made.rglob("carry.pt")
    }
    search = kept["darts-first-order-search"]["darts-first-order search"]
    after = kept["darts-first-order-evaluation"]["darts-first-order evaluation"]
    assert after["genotype"] == search["genotype"]
    assert len(read_genotype(after["genotype"]).layers) == 3
    assert search["data"] == after["data"]
    results = json.loads((made / "results.json").read_text())
    assert results["about"].endswith("chain of 3 layers")


def test_the_plain_progress_shows_the_genotype(tmp_path, capsys):
    words = ["--programs", "darts-first-order", *SIZES, *TICKS, "--out", str(tmp_path / "run")]
    assert main(["run", "nas", *words]) == 0
    printed = capsys.readouterr()
    title = "nas: seed 0, darts-first-order search: "
    told = [line.removeprefix(title) for line in (printed.out + printed.err).splitlines()]
    kept = torch.load(
        tmp_path / "run" / "seed-0" / "darts-first-order-search" / "carry.pt", weights_only=True
    )
    genotype = read_genotype(kept["darts-first-order search"]["genotype"])
    assert genotype_line(genotype) in told


@pytest.mark.parametrize("program", ["darts", "lfm"])
def test_the_program_is_drawn_and_checked(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--programs", program, *SIZES, "--search.lfm.encoder.width", "2"]
    assert main(["graph", "nas", *words]) == 0
    printed = capsys.readouterr().out
    problems = {"darts": ("network", "architecture"), "lfm": ("learner", "relearner", "architect")}
    assert all(name in printed for name in problems[program])
    assert main(["check", "nas", *words]) == 0
    printed = capsys.readouterr().out
    assert f"{problems[program][-1]}: total gradient against moves" in printed
    assert not [*tmp_path.iterdir()]
