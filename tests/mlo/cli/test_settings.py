"""Options of settings: one for every field, nested ones with dots, and who wins over whom."""

from __future__ import annotations

import enum
import json
import pathlib
from typing import Literal

import click
import pytest
from pydantic import BaseModel, ConfigDict, Field

from mlo.cli.layers import configured, read_file
from mlo.cli.settings import setting_options
from mlo.configuration import RecipeConfig
from mlo.errors import ConfigurationError


class Shape(enum.Enum):
    ROUND = "round"
    FLAT = "flat"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    deep_rate: float = 0.5
    shape: Shape = Shape.FLAT


class Network(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(16, ge=1, description="channels")
    layers: list[int] = [1, 2]
    drop_out: float | None = 0.1
    inner: Inner = Inner()


class Example(RecipeConfig):
    ticks: int = Field(10, ge=1, description="how long; 100 % by default")
    rate: float = Field(0.1, ge=0, le=1)
    noise: Literal["none", "flip", "uniform"] = "flip"
    imbalance: float | None = 0.5
    batch_norm: bool = False
    network: Network = Network(width=32, layers=[7], inner=Inner(deep_rate=0.25))
    teacher: Network | None = None
    word: Literal["a long alternative", "another long alternative", "a third one"] = "a third one"
    place: pathlib.Path = pathlib.Path("here")


class Demanding(Example):
    path: str


PRESETS = {
    "small": {"ticks": 2, "rate": 0.9, "network": {"width": 1, "inner": {"deep_rate": 0.125}}}
}


def command(model=Example, presets=PRESETS, taken=frozenset({"--help"})) -> click.Command:
    return click.Command("example", params=setting_options(model, presets, set(taken)))


def read(*words: str, model=Example) -> BaseModel:
    context = command(model).make_context("example", list(words))
    return configured(context, model, PRESETS, "example")


def given(*words: str) -> dict:
    """The settings that differ from their defaults."""
    default, found = Example().model_dump(mode="json"), read(*words).model_dump(mode="json")
    return {key: value for key, value in found.items() if value != default[key]}


NETWORK = Example().network.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {}),
        (("--ticks", "4"), {"ticks": 4}),
        (("--rate", "2e-1"), {"rate": 0.2}),
        (("--batch-norm=yes",), {"batch_norm": True}),
        (("--imbalance", "none"), {"imbalance": None}),
        (("--noise", "none"), {"noise": "none"}),
        (("--place", "-"), {"place": "-"}),
        (("--set", "ticks=4"), {"ticks": 4}),
        (("--set", "batch-norm=yes"), {"batch_norm": True}),
        (("--set", "word=another long alternative"), {"word": "another long alternative"}),
        (("--set", "ticks=4", "--ticks", "5"), {"ticks": 5}),
        (("--ticks", "5", "--set", "ticks=4"), {"ticks": 5}),
        (("--set", "ticks=4", "--set", "ticks=6"), {"ticks": 6}),
        (("--ticks", "4", "--ticks", "6"), {"ticks": 6}),
        # What is given of a nested model leaves the rest as it is by default.
        (("--network.width", "3"), {"network": {**NETWORK, "width": 3}}),
        (("--set", "network.width=3"), {"network": {**NETWORK, "width": 3}}),
        (("--set", 'network={"width": 3}'), {"network": {**NETWORK, "width": 3}}),
        (("--network.layers", "[3, 4]"), {"network": {**NETWORK, "layers": [3, 4]}}),
        (("--network.drop-out", "none"), {"network": {**NETWORK, "drop_out": None}}),
        (("--set", "network.drop_out=none"), {"network": {**NETWORK, "drop_out": None}}),
        (
            ("--network.inner.shape", "round"),
            {"network": {**NETWORK, "inner": {"deep_rate": 0.25, "shape": "round"}}},
        ),
        (
            ("--set", "network.width=3", "--network.inner.deep-rate", "1"),
            {"network": {**NETWORK, "width": 3, "inner": {"deep_rate": 1.0, "shape": "flat"}}},
        ),
        (("--teacher", "none"), {}),
        (("--teacher.width", "3"), {"teacher": {**Network(width=3).model_dump(mode="json")}}),
        (("--teacher", "{}"), {"teacher": Network().model_dump(mode="json")}),
    ],
)
def test_options_and_keys_become_settings(words, expected):
    assert given(*words) == expected


def test_options_win_over_keys_over_the_file_over_the_preset_over_the_defaults(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("rate = 0.3\nseeds = 3\nfirst_seed = 3\n[network]\nlayers = [3]\nwidth = 3\n")
    # Every layer sets one thing more than the next, which wins over it in all others.
    words = ["--preset", "small", "--config", str(path)]
    words += ["--set", "seeds=4", "--set", "first_seed=4", "--set", "network.width=4"]
    words += ["--first-seed", "5", "--network.inner.deep-rate", "5"]
    config = read(*words)
    assert config.imbalance == 0.5
    assert config.ticks == 2
    assert (config.rate, config.network.layers) == (0.3, [3])
    assert (config.seeds, config.network.width) == (4, 4)
    assert (config.first_seed, config.network.inner.deep_rate) == (5, 5.0)
    assert read("--preset", "small").network.inner.deep_rate == 0.125
    assert read("--preset", "small", "--set", "network.inner.deep_rate=4").ticks == 2


@pytest.mark.parametrize("name", ["settings.toml", "settings.json"])
def test_a_file_is_read(tmp_path, name):
    path = tmp_path / name
    toml = 'ticks = 7\nimbalance = "none"\n[network]\nwidth = 5\n'
    written = {"ticks": 7, "imbalance": None, "network": {"width": 5}}
    path.write_text(json.dumps(written) if name.endswith("json") else toml)
    config = read("--config", str(path))
    assert (config.ticks, config.imbalance, config.network.width) == (7, None, 5)
    assert config.network.layers == [7]


def test_a_written_configuration_is_read_back_as_it_was(tmp_path):
    config = Example(ticks=3, imbalance=None, network=Network(width=2, layers=[5]), teacher=None)
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert read("--config", str(path)) == config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "ticks"), ("--set", "KEY=VALUE", "'ticks'")),
        (("--set", "=4"), ("--set", "KEY=VALUE", "'=4'")),
        (("--set", "ticks=4", "--set", "ticks.more=1"), ("ticks.more", "'ticks'")),
        (("--teacher", "none", "--teacher.width", "3"), ("--teacher.width", "'teacher'")),
        (("--teacher", "{width: 3}"), ("--teacher", "{width: 3}", "JSON")),
        (("--set", "network.layers=[1"), ("--set network.layers", "[1", "JSON")),
        (("--preset", "smal"), ("--preset", "'smal'", "did you mean 'small'")),
        (("--network.width", "0", "--rate", "2"), ("2 settings", "network.width:", "rate:")),
        (
            (
                "--set",
                "network.widht=0",
            ),
            ("network.widht:", "did you mean 'width'"),
        ),
    ],
)
def test_what_cannot_be_read_from_the_command_line_is_named(words, expected):
    with pytest.raises(ConfigurationError) as caught:
        read(*words)
    assert [text for text in expected if text not in str(caught.value)] == []


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
        read_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["quiet", "config", "preset", "help"])
def test_a_field_that_takes_an_option_of_the_command_is_refused(name):
    clashing = type("Clashing", (BaseModel,), {"__annotations__": {name: bool}, name: False})
    with pytest.raises(ConfigurationError, match=rf"Clashing\.{name}.*rename the field"):
        command(clashing, taken={"--quiet", "--help"})


def test_fields_whose_joined_names_are_alike_are_told_apart():
    class Part(BaseModel):
        b_c: int = 1
        c: int = 1

    class Alike(BaseModel):
        a: Part = Part()
        a_b: Part = Part()
        a_b_c: int = 1

    words = ["--a.b-c", "2", "--a-b.c", "3", "--a-b-c", "4"]
    context = command(Alike, {}).make_context("example", words)
    config = configured(context, Alike, {}, "example")
    assert (config.a.b_c, config.a.c, config.a_b.c, config.a_b.b_c, config.a_b_c) == (2, 1, 3, 1, 4)


def test_the_help_shows_kinds_choices_and_defaults():
    text = " ".join(command(Demanding).get_help(click.Context(command(Demanding))).split())
    for part in (
        "--ticks N how long; 100 % by default (default: 10)",
        "--noise none|flip|uniform (default: flip)",
        "--imbalance X|none (default: 0.5)",
        "--batch-norm yes|no (default: no)",
        "--network.width N channels (default: 32)",
        "--network.layers VALUE (default: [7])",
        "--network.inner.deep-rate X (default: 0.25)",
        "--network.inner.shape round|flat (default: flat)",
        "--teacher VALUE|none (default: none)",
        "--teacher.width N channels (default: 16)",
        "--word WORD one of a long alternative, another long alternative, a third one (default: a",
        "--place PATH (default: here)",
        "--path NAME (required)",
        "--preset NAME a set of settings: small",
    ):
        assert part in text
    assert "--network " not in text
