from __future__ import annotations

import argparse
import json
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mlo.configuration import RecipeConfig, configure
from mlo.errors import ConfigurationError
from mlo.options import add_settings, parse_settings, read_file


class Network(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(16, ge=1)
    layers: list[int] = [1, 2]


class Example(RecipeConfig):
    ticks: int = Field(10, ge=1, description="how long; 100 % by default")
    rate: float = Field(0.1, ge=0, le=1)
    noise: Literal["none", "flip", "uniform"] = "flip"
    imbalance: float | None = 0.5
    batch_norm: bool = False
    network: Network = Network()

    @field_validator("ticks")
    @classmethod
    def _not_thirteen(cls, value: int) -> int:
        if value == 13:
            raise ValueError("thirteen is not allowed")
        return value


class Demanding(Example):
    path: str


def given(*words: str) -> dict:
    parser = argparse.ArgumentParser(prog="mlo run example", allow_abbrev=False)
    add_settings(parser, Example)
    return parse_settings(parser, words)[1]


def complaint(values: dict, model: type[BaseModel] = Example) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(model, values, title="example")
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--ticks", "4"), {"ticks": "4"}),
        (("--batch-norm=yes",), {"batch_norm": "yes"}),
        (("--set", "ticks=4"), {"ticks": "4"}),
        (("--set", "batch-norm=yes"), {"batch_norm": "yes"}),
        (("--set", "network.width=3"), {"network": {"width": "3"}}),
        (("--set", "network.layers=[3, 4]"), {"network": {"layers": [3, 4]}}),
        (("--network", '{"width": 3}'), {"network": {"width": 3}}),
        (("--network", '{"width": 3}', "--set", "network.width=4"), {"network": {"width": 3}}),
        (("--set", "ticks=4", "--ticks", "5"), {"ticks": "5"}),
        (("--set", "ticks=4", "--set", "ticks=6"), {"ticks": "6"}),
        (("--set", "ticks="), {"ticks": ""}),
        (("--set", "rate=a=b"), {"rate": "a=b"}),
    ],
)
def test_options_and_keys_become_settings(words, expected):
    assert given(*words) == expected


def test_text_from_the_command_line_becomes_the_type_of_the_field():
    words = ("--ticks", "4", "--rate", "2e-1", "--batch-norm", "yes", "--imbalance", "none")
    config = configure(Example, given(*words, "--set", "network.width=3"), title="example")
    assert (config.ticks, config.rate, config.batch_norm, config.imbalance) == (4, 0.2, True, None)
    assert config.network.width == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.toml", 'ticks = 7\nnoise = "none"\nimbalance = "none"\n[network]\nwidth = 5\n'),
        (
            "settings.json",
            '{"ticks": 7, "noise": "none", "imbalance": null, "network": {"width": 5}}',
        ),
    ],
)
def test_a_file_is_read_and_options_win_over_keys_over_the_file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    config = configure(Example, read_file(path), title="example")
    assert (config.ticks, config.noise, config.imbalance, config.network.width) == (
        7,
        "none",
        None,
        5,
    )
    words = ("--config", str(path), "--ticks", "9", "--set", "ticks=8", "--set", "rate=0.5")
    assert {**given(*words), "network": None, "imbalance": None} == {
        "ticks": "9",
        "rate": "0.5",
        "noise": "none",
        "imbalance": None,
        "network": None,
    }
    assert given(*words, "--set", "network.width=6")["network"] == {"width": "6"}


def test_a_written_configuration_is_read_back_as_it_was(tmp_path):
    config = Example(ticks=3, imbalance=None, network=Network(width=2, layers=[5]))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    assert configure(Example, read_file(path), title="example") == config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--tick", "4"), ("'--tick'", "'--ticks'")),
        (("--batch_norm", "yes"), ("'--batch_norm'", "'--batch-norm'")),
        (("--bacth-norm=yes",), ("'--bacth-norm=yes'", "'--batch-norm'")),
        (("word",), ("'word'", "options begin with --")),
        (("--set", "ticks"), ("--set", "KEY=VALUE", "'ticks'")),
        (("--set", "=4"), ("--set", "KEY=VALUE", "'=4'")),
        (("--set", "ticks=4", "--set", "ticks.more=1"), ("ticks.more", "'ticks'")),
        (("--network", "{width: 3}"), ("--network", "{width: 3}", "JSON")),
        (("--set", "network.layers=[1"), ("--set network.layers", "[1", "JSON")),
    ],
)
def test_what_cannot_be_read_from_the_command_line_is_named(words, expected):
    with pytest.raises(ConfigurationError) as caught:
        given(*words)
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.toml", None, "No such file"),
        ("bad.toml", b"ticks = ", "damaged"),
        ("bad.json", b"{ticks: 3}", "damaged"),
        ("bytes.toml", b"\xff\xfe", "damaged"),
        ("list.json", b"[1]", "got list"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        given("--config", str(path))
    assert str(path) in str(caught.value)


def test_a_field_that_takes_an_option_of_the_command_is_refused():
    class Clashing(BaseModel):
        quiet: bool = False

    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet")
    with pytest.raises(ConfigurationError, match=r"Clashing\.quiet.*rename the field"):
        add_settings(parser, Clashing)


def test_the_help_shows_kinds_choices_and_defaults():
    parser = argparse.ArgumentParser(prog="mlo")
    add_settings(parser, Demanding)
    text = " ".join(parser.format_help().split())
    for part in (
        "--ticks N how long; 100 % by default (default: 10)",
        "--noise none|flip|uniform (default: flip)",
        "--imbalance X|none (default: 0.5)",
        "--batch-norm yes|no (default: no)",
        "--path NAME (required)",
    ):
        assert part in text
