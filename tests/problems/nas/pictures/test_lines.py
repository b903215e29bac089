"""A genotype in one line."""

from __future__ import annotations

import itertools

import pytest
import torch

from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.operations import OPERATIONS
from problems.nas.pictures import genotype_line
from problems.nas.pictures.words import words
from problems.nas.published import DARTS_V2
from problems.nas.space import CellSpace


def test_the_line_names_inputs_and_operations_of_every_node():
    assert genotype_line(DARTS_V2) == (
        "normal 0sep3+1sep3 0sep3+1sep3 0skip+1sep3 0skip+2dil3; "
        "reduce 0max3+1max3 1max3+2skip 0max3+2skip 1max3+2skip"
    )


def test_the_same_layers_in_a_row_are_counted():
    layers = ("conv_3x3", "skip_connect", "skip_connect", "skip_connect", "conv_3x3")
    assert genotype_line(MacroGenotype(layers=layers)) == "conv3 skip*3 conv3"


def test_brief_names_are_short_plain_and_those_of_one_operation():
    brief = [words(name).brief for name in OPERATIONS]
    assert len(set(brief)) == len(OPERATIONS)
    assert all(name.isascii() and name.isalnum() and len(name) <= 5 for name in brief)
    assert not any(name[0].isdigit() for name in brief), "a state's number stands before it"


@pytest.mark.parametrize("seed", range(3))
def test_lines_are_short_and_differ_where_the_networks_do(seed):
    space = CellSpace.darts()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        found = space.random_genotype(generator)
        line = genotype_line(found)
        assert len(line) <= 110
        for cell, node, side in itertools.product(("normal", "reduce"), range(4), (0, 1)):
            values = found.model_dump()
            choice = values[cell]["nodes"][node][side]
            other = "sep_conv_3x3" if choice["operation"] != "sep_conv_3x3" else "dil_conv_3x3"
            choice["operation"] = other
            assert genotype_line(Genotype.of(**values)) != line


def test_the_order_of_the_operations_of_a_node_does_not_matter():
    values = DARTS_V2.model_dump()
    for cell in ("normal", "reduce"):
        values[cell]["nodes"] = [pair[::-1] for pair in values[cell]["nodes"]]
    assert genotype_line(Genotype.of(**values)) == genotype_line(DARTS_V2)
