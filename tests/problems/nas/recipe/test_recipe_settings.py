"""Settings, the forms of a genotype, and the table of results."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from mlo.configuration import check_written
from mlo.errors import ConfigurationError
from mlo.metrics import Metric
from problems import sources
from problems.datasets import DataSet
from problems.nas.config import NASConfig
from problems.nas.genotype import read_genotype, to_darts
from problems.nas.named import genotype_of
from problems.nas.networks import make_network
from problems.nas.presets import PRESETS
from problems.nas.published import DARTS_V2, PUBLISHED
from problems.nas.recipe import describe, recipe
from problems.nas.scene import Scene, space_of
from problems.nas.setups import parameters
from problems.nas.space import CellSpace, MacroSpace
from problems.nas.tables import tables

from .small import config


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", PRESETS)
def test_settings_are_the_same_after_they_were_written(name):
    check_written(NASConfig, NASConfig(**PRESETS[name]))


def test_lists_may_be_names_with_commas():
    made = NASConfig(programs="lfm,darts", operations="none,skip_connect")
    assert made.programs == ("lfm", "darts")
    assert made.operations == ("none", "skip_connect")
    names = [stage.name for stage in recipe.stages(made)]
    assert names == ["lfm search", "lfm evaluation", "darts search", "darts evaluation"]


@pytest.mark.parametrize("where", [("chanels",), ("search", "tick"), ("evaluation", "drop")])
def test_unknown_settings_are_refused(where):
    own = {where[-1]: 1} if len(where) == 1 else {where[0]: {where[1]: 1}}
    with pytest.raises(ConfigurationError, match=where[-1]):
        config("darts", **own)


def forms(tmp_path):
    text = to_darts(DARTS_V2)
    (tmp_path / "written.json").write_text(DARTS_V2.to_json())
    (tmp_path / "of darts (2).txt").write_text(f"DARTS_V2 = {text}\n")
    return {
        "name": "darts-v2",
        "JSON": DARTS_V2.to_json(),
        "DARTS": text,
        "an assignment": f" DARTS_V2 = {text}",
        "a file of JSON": str(tmp_path / "written.json"),
        "a file of DARTS": str(tmp_path / "of darts (2).txt"),
    }


def test_a_genotype_may_be_a_name_a_file_or_its_text(tmp_path):
    for form in forms(tmp_path).values():
        assert genotype_of(form) == DARTS_V2, form
        made = config("given", genotype=form, space="cell")
        assert read_genotype(made.genotype) == DARTS_V2 if form not in PUBLISHED else True
        check_written(NASConfig, made)
    for name, genotype in PUBLISHED.items():
        assert genotype_of(name) == genotype
        assert config("given", genotype=name).genotype == name


def test_a_run_does_not_depend_on_the_file_of_its_genotype(tmp_path):
    file = forms(tmp_path)["a file of JSON"]
    made = config("given", genotype=file)
    (tmp_path / "written.json").write_text(PUBLISHED["darts-v1"].to_json())
    assert genotype_of(made.genotype) == DARTS_V2


def test_a_genotype_goes_with_its_program_only():
    for programs, own in (["given"], {}), (["darts"], {"genotype": "darts-v1"}):
        with pytest.raises(ConfigurationError, match="genotype: expected one with the program"):
            config(*programs, **own)


def test_the_space_is_that_of_the_settings():
    chain = space_of(config("darts"))
    assert isinstance(chain, MacroSpace)
    assert len(chain.parts["layers"]) == 3
    cells = space_of(config("darts", space="cell", nodes=3, operations=None))
    assert cells == CellSpace.darts(3)
    assert {len(edge.operations) for edge in cells.parts["normal"]} == {8}


def test_what_is_searched_in_is_told():
    assert describe(config("lfm")).endswith(", chain of 3 layers")
    assert describe(config("lfm", space="cell")).endswith(", cells, 3 layers")
    assert describe(config("random", evaluation={"layers": 4})).endswith(", chain of 4 layers")
    assert describe(config("given", genotype="darts-v2")).endswith(", a given genotype")
    note = recipe.notes(config("lfm"))[0]
    assert "on the test set" in note
    note = recipe.notes(config("lfm", evaluation={"on": "search"}))[0]
    assert "the share of the training set that architectures are judged on" in note


def test_a_given_genotype_needs_no_batch_of_a_search():
    own = {"genotype": "darts-v2", "search": {"train_batch": 5000}, "evaluation": {"layers": 3}}
    recipe.check(config("given", **own))
    with pytest.raises(ConfigurationError, match=r"search\.train_batch"):
        Scene(config("darts", search={"train_batch": 5000}), 0)


def test_the_auxiliary_head_is_not_counted(monkeypatch):
    x, labels = torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10
    data = DataSet("cifar10", "", "f" * 64, (x, labels), (x, labels), 10)
    monkeypatch.setattr(sources, "_loaded", lambda *_: data)
    own = {"layers": 20, "channels": 36, "auxiliary": True, "batch": 5}
    network = Scene(config("random", dataset="cifar10", evaluation=own), 0).network(DARTS_V2)
    assert network.auxiliary is not None
    bare = make_network(DARTS_V2, 10, (3, 32, 32), channels=36, layers=20)
    assert parameters(network) == sum(p.numel() for p in bare.parameters()) == 3_349_342


def test_the_table_has_a_row_for_each_program_that_is_over():
    values = {"accuracy": (0.9, 0.8), "parameters": (1500, 2500), "skip connections": (1, 2)}
    metrics = [
        Metric(seed, f"{program} evaluation", "network", name, pair[seed] + offset)
        for program, offset in (("lfm", 0), ("random", 0.0125))
        for name, pair in values.items()
        for seed in (0, 1)
    ]
    metrics.append(Metric(0, "darts search", "network", "accuracy", 0.3))
    (table,) = tables("digits", ("random", "darts", "lfm"), metrics)
    console = Console(width=100, record=True, file=None, quiet=True)
    console.quiet = False
    with console.capture() as captured:
        console.print(table)
    rows = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert rows[-2:] == [
        ["random", "86.25", "7.07", "2.0", "1.5"],
        ["lfm", "85.00", "7.07", "2.0", "1.5"],
    ]
    assert not tables("digits", ("darts",), metrics)
