"""The dependency graph as plain values says what its drawings say."""

from __future__ import annotations

import json
import re

import pytest
import torch

from mlo.drawing import as_mermaid, as_plain
from problems.lfm.config import ReweightingConfig
from problems.lfm.recipe import recipe

from .classified import engine


def graphs():
    torch.set_default_dtype(torch.float32)
    for settings in ({}, {"stage1_weights": True}, {"hypergradient": "dense"}):
        yield recipe.engine(ReweightingConfig(width=1, features=2, **settings), 0).graph
    torch.set_default_dtype(torch.float64)
    yield engine().graph


@pytest.mark.parametrize("number", range(4))
def test_edges_levels_kinds_and_streams_are_those_of_the_drawings(number):
    graph = list(graphs())[number]
    plain = as_plain(graph)
    assert json.loads(json.dumps(plain)) == plain
    chart = as_mermaid(graph)
    arrows = re.findall(r"problem_(\w+) (==>|-->) problem_(\w+)", chart)
    edges = {(e["read"], "==>" if e["response"] else "-->", e["by"]) for e in plain["edges"]}
    assert edges == set(arrows)
    assert len(plain["edges"]) == len(arrows)
    streams = {(s, p["name"]) for p in plain["problems"] for s in p["streams"]}
    assert streams == set(re.findall(r"data_(\w+)\[.*-\.-> problem_(\w+)", chart))
    heads = re.findall(r"level (\d+)  (\w+) \[(\w+)(?: by (.*))?\]", str(graph))
    found = [(str(p["level"]), p["name"], p["kind"], p["method"] or "") for p in plain["problems"]]
    assert found == heads[::-1]
