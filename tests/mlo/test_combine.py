"""Layers of settings: a preset, a file and options."""

from __future__ import annotations

import copy
import types

import pytest

from mlo.configuration import combine

PRESET = {"ticks": 5, "network": {"width": 2, "layers": [1, 2], "head": {"bias": True}}}
FILE = {"rate": 0.5, "network": {"layers": [3], "head": {"size": 7}}}
OPTIONS = {"ticks": "9", "network": {"head": {"bias": "no"}}}


def test_later_layers_win_and_tables_are_combined_at_every_depth():
    assert combine(PRESET, FILE, OPTIONS) == {
        "ticks": "9",
        "rate": 0.5,
        # Lists are values: that of the file replaces the one of the preset.
        "network": {"width": 2, "layers": [3], "head": {"bias": "no", "size": 7}},
    }
    assert combine(OPTIONS, FILE, PRESET)["ticks"] == 5


def test_the_order_of_keys_is_that_in_which_they_first_appear():
    assert list(combine(PRESET, FILE, OPTIONS)) == ["ticks", "network", "rate"]


@pytest.mark.parametrize("layers", [(), ({},), ({}, {})])
def test_of_nothing_comes_nothing(layers):
    assert combine(*layers) == {}


def test_one_layer_comes_out_as_it_is():
    assert combine(PRESET) == PRESET


def test_combining_in_two_steps_is_the_same_as_in_one():
    assert combine(combine(PRESET, FILE), OPTIONS) == combine(PRESET, FILE, OPTIONS)
    assert combine(PRESET, combine(FILE, OPTIONS)) == combine(PRESET, FILE, OPTIONS)


@pytest.mark.parametrize(
    ("below", "above"),
    [({"width": 3}, None), ({"width": 3}, 4), (4, {"width": 3}), (None, {"width": 3}), ([1], [])],
)
def test_a_value_and_a_table_are_not_combined(below, above):
    assert combine({"network": below}, {"network": above}) == {"network": above}


def test_an_empty_table_changes_nothing_below_it():
    assert combine({"network": {"width": 3}}, {"network": {}}) == {"network": {"width": 3}}


def test_none_is_a_value_that_wins():
    assert combine({"threads": 3}, {"threads": None}) == {"threads": None}


def test_the_layers_stay_as_they_are_whatever_is_done_to_the_result():
    layers = [copy.deepcopy(layer) for layer in (PRESET, FILE, OPTIONS)]
    combined = combine(*layers)
    combined["network"]["layers"].append(99)
    combined["network"]["head"]["size"] = 99
    combined["network"]["width"] = 99
    alone = combine(layers[0])
    alone["network"]["layers"].append(99)
    alone["network"]["head"]["bias"] = 99
    assert layers == [PRESET, FILE, OPTIONS]


def test_any_mapping_is_a_layer_and_the_result_is_made_of_plain_tables():
    frozen = types.MappingProxyType({"network": types.MappingProxyType({"width": 2})})
    combined = combine(frozen, {"network": {"depth": 3}})
    assert combined == {"network": {"width": 2, "depth": 3}}
    assert type(combine(frozen)["network"]) is dict
