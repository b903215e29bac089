"""Genotypes as values: JSON and the text of DARTS in and out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from mlo.errors import ConfigurationError
from problems.nas.genotype import Choice, Genotype, MacroGenotype, read_genotype, to_darts
from problems.nas.published import DARTS_V1, DARTS_V2, P_DARTS, PUBLISHED
from problems.nas.space import CellSpace, MacroSpace

TEXT = to_darts(DARTS_V2)


def genotypes() -> list[Genotype | MacroGenotype]:
    generator = torch.Generator().manual_seed(3)
    cells = [CellSpace.darts(nodes).random_genotype(generator) for nodes in (1, 2, 4, 5)]
    return [*PUBLISHED.values(), *cells, MacroSpace.chain(5).random_genotype(generator)]


@pytest.mark.parametrize("number", range(len(genotypes())))
def test_json_gives_the_same_genotype_back(number):
    genotype = genotypes()[number]
    again = read_genotype(f"\n {genotype.to_json()}\n")
    assert again == genotype
    assert type(again) is type(genotype)
    assert hash(again) == hash(genotype)
    assert type(genotype).of(**json.loads(genotype.to_json())) == genotype


@pytest.mark.parametrize("number", range(len(genotypes()) - 1))
def test_the_text_of_darts_gives_the_same_genotype_back(number):
    genotype = genotypes()[number]
    assert read_genotype(to_darts(genotype)) == genotype
    assert read_genotype(f"\nBEST = {to_darts(genotype)}\n") == genotype


def test_an_output_that_is_no_range_is_written_as_a_list():
    text = TEXT.replace("normal_concat=range(2, 6)", "normal_concat=[5, 3]")
    genotype = read_genotype(text)
    assert genotype.normal.concat == (5, 3)
    assert "normal_concat=[5, 3]" in to_darts(genotype)
    assert read_genotype(to_darts(genotype)) == genotype


def test_published_genotypes_say_what_their_papers_draw():
    def inputs(cell) -> list[list[int]]:
        return [[choice.input for choice in pair] for pair in cell.nodes]

    assert inputs(DARTS_V2.normal) == [[0, 1], [0, 1], [1, 0], [0, 2]]
    assert DARTS_V2.normal.nodes[3][1] == Choice(operation="dil_conv_3x3", input=2)
    assert DARTS_V2.reduce.nodes[1] == (
        Choice(operation="skip_connect", input=2),
        Choice(operation="max_pool_3x3", input=1),
    )
    assert [DARTS_V1.skips, DARTS_V2.skips, P_DARTS.skips] == [3, 2, 2]
    assert all(genotype.normal.concat == (2, 3, 4, 5) for genotype in PUBLISHED.values())


def test_skips_of_a_chain_are_counted():
    layers = ("skip_connect", "conv_3x3", "skip_connect")
    assert MacroGenotype(layers=layers).skips == 2


def test_a_genotype_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        DARTS_V2.normal.nodes[0][0].input = 1


def changed(change: Callable[[dict], object]) -> str:
    values = json.loads(DARTS_V2.to_json())
    change(values)
    return json.dumps(values)


def first(values: dict) -> dict:
    return values["normal"]["nodes"][0][0]


MISFITS = {
    "unknown operation": (
        lambda v: first(v).update(operation="sep_conv_33"),
        ["normal.nodes.0.0.operation", "sep_conv_33", "did you mean 'sep_conv_3x3'"],
    ),
    "none": (
        lambda v: first(v).update(operation="none"),
        ["normal.nodes.0.0.operation", "other than 'none'"],
    ),
    "the node itself": (
        lambda v: first(v).update(input=2),
        ["normal", "node 2", "states 0 to 1", "found 2"],
    ),
    "a later node": (
        lambda v: v["reduce"]["nodes"][1][1].update(input=4),
        ["reduce", "node 3", "states 0 to 2", "found 4"],
    ),
    "no state": (lambda v: first(v).update(input=-1), ["normal.nodes.0.0.input", "got -1"]),
    "the same input": (
        lambda v: first(v).update(input=1),
        ["normal", "node 2", "two different inputs", "state 1 twice"],
    ),
    "one choice": (lambda v: v["normal"]["nodes"][2].pop(), ["normal.nodes.2.1"]),
    "three choices": (
        lambda v: v["normal"]["nodes"][2].append(first(v)),
        ["normal.nodes.2", "at most 2"],
    ),
    "no nodes": (lambda v: v["normal"].update(nodes=[]), ["normal.nodes", "at least 1"]),
    "an input as output": (
        lambda v: v["reduce"].update(concat=[1, 2]),
        ["reduce", "concat", "2 to 5", "found 1"],
    ),
    "a node that is not there": (
        lambda v: v["reduce"].update(concat=[2, 6]),
        ["reduce", "concat", "2 to 5", "found 6"],
    ),
    "a node twice": (lambda v: v["reduce"].update(concat=[2, 2]), ["concat", "[2, 2]"]),
    "no output": (lambda v: v["reduce"].update(concat=[]), ["reduce.concat", "at least 1"]),
    "no cell": (lambda v: v.pop("reduce"), ["reduce", "expected a value"]),
    "another key": (lambda v: v.update(other=1), ["other", "no such setting"]),
    "no kind": (lambda v: v.pop("kind"), ["kind", "'cell' or 'macro'"]),
    "unknown kind": (lambda v: v.update(kind="zell"), ["kind", "'zell'", "did you mean 'cell'"]),
    "a truth value": (lambda v: first(v).update(input=True), ["input", "True"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_named_with_its_place(name):
    change, words = MISFITS[name]
    with pytest.raises(ConfigurationError) as caught:
        read_genotype(changed(change))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_plain_values_that_do_not_fit_are_an_error_of_the_project():
    with pytest.raises(ConfigurationError, match=r"layers\.1.*did you mean 'conv_3x3'"):
        MacroGenotype.of(layers=["conv_3x3", "conv_33"])
    with pytest.raises(ConfigurationError, match="layers"):
        MacroGenotype.of(layers=[])


DAMAGED = {
    "nothing": "",
    "prose": "not a genotype",
    "a list": "[1]",
    "JSON cut off": DARTS_V2.to_json()[:-20],
    "JSON that is deep": '{"a":' * 3_000,
    "text cut off": TEXT[:-20],
    "two statements": f"{TEXT}; {TEXT}",
    "two names": f"A = B = {TEXT}",
    "another call": TEXT.replace("Genotype", "print"),
    "a method": TEXT.replace("Genotype", "a.Genotype"),
    "positional": "Genotype([], [], [], [])",
    "unpacked": "Genotype(**{})",
    "positional too": TEXT.replace("(", "(1, ", 1),
    "an argument too few": TEXT.replace("reduce_concat", "reduced"),
    "an argument twice": TEXT.replace("reduce=", "normal="),
    "a choice too few": TEXT.replace("('sep_conv_3x3', 0), ", "", 1),
    "no pairs": TEXT.replace("('sep_conv_3x3', 0)", "'sep_conv_3x3'", 1),
    "no text": TEXT.replace("'sep_conv_3x3'", "7", 1),
    "a number of another kind": TEXT.replace("0)", "0.0)", 1),
    "a truth value": TEXT.replace("0)", "False)", 1),
    "a number below zero": TEXT.replace("0)", "-1)", 1),
    "a sum": TEXT.replace("0)", "0 + 0)", 1),
    "a long range": TEXT.replace("6)", "10000000000)", 1),
    "a step": TEXT.replace("range(2, 6)", "range(2, 6, 1)"),
    "nested": "(" * 5000,
    "signs": "-" * 19_000 + "1",
    "attributes": "a" + ".b" * 9_000,
    "a null byte": "Genotype\0",
    "an escape": "Genotype(normal='\\d')",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_text_is_an_error_of_the_project(name):
    with pytest.raises(ConfigurationError, match="genotype"):
        read_genotype(DAMAGED[name])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path({path!r}).touch()",
        "Genotype(normal=open({path!r}, 'w'), normal_concat=[2], reduce=[], reduce_concat=[2])",
        "Genotype(normal=[(open({path!r}, 'w'), 0)], normal_concat=[2], reduce=[],"
        " reduce_concat=[2])",
        "Genotype(normal=[], normal_concat=range(2, len(open({path!r}, 'w'))), reduce=[],"
        " reduce_concat=[2])",
        "X = open({path!r}, 'w')",
    ],
)
def test_text_is_never_executed(text, tmp_path):
    path = tmp_path / "touched"
    with pytest.raises(ConfigurationError):
        read_genotype(text.format(path=str(path)))
    assert not path.exists()


def test_a_chain_has_no_text_of_darts():
    with pytest.raises(ConfigurationError, match="MacroGenotype"):
        to_darts(MacroGenotype(layers=("conv_3x3",)))


def test_a_text_too_long_for_a_genotype_is_not_parsed():
    with pytest.raises(ConfigurationError, match="at most 20000 characters, found 30000"):
        read_genotype(DARTS_V2.to_json().ljust(30_000))


def test_choices_that_leave_a_node_with_one_are_counted():
    with pytest.raises(ConfigurationError, match=r"normal: expected an even number .* found 7"):
        read_genotype(DAMAGED["a choice too few"])
