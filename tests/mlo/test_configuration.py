from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mlo.configuration import configure

from .configured import Demanding, Example, Network, complaint


def test_settings_fill_the_model_and_the_rest_is_default():
    config = configure(Example, {"ticks": 3, "network": {"width": 2}}, title="example")
    assert (config.ticks, config.network.width, config.network.layers) == (3, 2, [1, 2])
    assert (config.seeds, config.rate) == (1, 0.1)
    with pytest.raises(ValidationError, match="frozen"):
        config.ticks = 4


def test_every_wrong_setting_is_reported_at_once_with_its_path_and_the_nearest_name():
    message = complaint(
        {
            "tick": 3,
            "rate": 1.5,
            "noise": "unifrm",
            "seeds": 0,
            "network": {"widht": 2, "layers": [1, "two"]},
        }
    )
    first, *lines = message.splitlines()
    assert first == "example: 6 settings do not fit:"
    expected = {
        "tick:": "did you mean 'ticks'",
        "rate:": "less than or equal to 1, got 1.5",
        "noise:": "'none', 'flip' or 'uniform', got 'unifrm'; did you mean 'uniform'",
        "seeds:": "greater than or equal to 1, got 0",
        "network.widht:": "did you mean 'width'",
        "network.layers.1:": "got 'two'",
    }
    assert len(lines) == len(expected)
    for path, words in expected.items():
        (line,) = (line for line in lines if line.strip().startswith(path))
        assert words in line


def test_a_name_near_to_none_comes_with_the_list_of_those_that_exist():
    message = complaint({"zzz": 1})
    assert "zzz: there is no such setting; known:" in message
    for name in Example.model_fields:
        assert f"'{name}'" in message


def test_a_single_mistake_is_told_in_the_singular():
    assert complaint({"tick": 3}).startswith("example: a setting does not fit:\n")


def test_the_sentence_of_a_validator_is_told_as_it_is():
    assert complaint({"ticks": 13}).endswith("\n  ticks: thirteen is not allowed")


def test_a_setting_without_default_that_is_missing_is_named():
    assert "path: expected a value, got none" in complaint({}, Demanding)


@pytest.mark.parametrize("value", ["none", None])
def test_the_word_none_means_none_where_that_is_allowed(value):
    assert configure(Example, {"imbalance": value}, title="example").imbalance is None


def test_the_word_none_stays_a_word_where_it_is_a_choice():
    assert configure(Example, {"noise": "none"}, title="example").noise == "none"
    assert "rate: expected a valid number" in complaint({"rate": "none"})


def test_a_written_configuration_is_read_back_as_it_was(tmp_path):
    config = Example(ticks=3, imbalance=None, network=Network(width=2, layers=[5]))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    assert configure(Example, json.loads(path.read_text()), title="example") == config
