"""What counts as a number or as none, at every depth of a configuration, and what it holds."""

from __future__ import annotations

import json
import math
import tomllib
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field, ValidationError

from mlo.configuration import RecipeConfig, Section, configure

from .configured import Descent, Example, Experiment, Network, reasons


class Numbers(Section):
    whole: int = 1
    real: float = 1.0
    either: int | float = 1
    optional: int | None = None
    bounded: Annotated[float, Field(ge=-9)] = 1.0
    listed: list[int] = Field([])
    fixed: tuple[int, float] = (1, 2)
    by_name: dict[str, float] = Field({})
    exact: Decimal = Decimal(1)
    counted: set[int] = Field(set())


class Holder(RecipeConfig):
    numbers: Numbers = Numbers()
    several: list[Numbers] = Field([])
    own: int = 1
    choice: int | str = "a"


PLACES: dict[str, Any] = {
    "whole": lambda value: value,
    "real": lambda value: value,
    "either": lambda value: value,
    "optional": lambda value: value,
    "bounded": lambda value: value,
    "listed.1": lambda value: [1, value],
    "fixed.0": lambda value: [value, 1],
    "fixed.1": lambda value: [1, value],
    "by_name.key": lambda value: {"key": value},
    "exact": lambda value: value,
    "counted.0": lambda value: [value],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [True, False, math.nan, math.inf, -math.inf])
def test_truth_values_and_numbers_that_are_not_finite_are_refused_at_every_depth(place, value):
    name = place.partition(".")[0]
    settings = {name: PLACES[place](value)}
    for depth, around in (
        (f"numbers.{place}", {"numbers": settings}),
        (f"several.1.{place}", {"several": [{}, settings]}),
    ):
        said = reasons(around, Holder)
        assert list(said) == [depth]
        assert said[depth].startswith("expected ")
        assert said[depth].endswith(f", got {value!r}")


@pytest.mark.parametrize("value", [True, False])
def test_truth_values_are_refused_by_the_model_itself(value):
    with pytest.raises(ValidationError, match="valid integer"):
        Numbers(whole=value)
    with pytest.raises(ValidationError, match="valid integer"):
        Holder(seeds=value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "Infinity"])
def test_the_words_for_such_numbers_are_refused_as_well(text):
    assert reasons({"rate": text}, Example) == {"rate": f"expected a finite number, got '{text}'"}


@pytest.mark.parametrize("value", [math.inf, -math.inf, "inf"])
def test_a_field_may_allow_them(value):
    assert configure(Experiment, {"bound": value}, title="example").bound == float(value)
    assert math.isnan(configure(Experiment, {"bound": "nan"}, title="example").bound)
    assert list(reasons({"bound": True})) == ["bound"]


@pytest.mark.parametrize("read", [tomllib.loads, json.loads])
def test_files_bring_truth_values_and_nan_and_they_are_refused(read):
    if read is tomllib.loads:
        values = read("seeds = true\nrate = nan\n[network]\nlayers = [1, false]\n")
    else:
        values = read('{"seeds": true, "rate": NaN, "network": {"layers": [1, false]}}')
    assert list(reasons(values, Example)) == ["seeds", "rate", "network.layers.1"]


def test_a_truth_value_stays_one_where_it_is_wanted():
    class Mixed(RecipeConfig):
        flag: bool = False
        count: int | bool = 1
        word: Literal[True, "x"] = "x"

    config = configure(
        Mixed,
        dict.fromkeys(Mixed.model_fields.keys() - {"seeds", "first_seed", "threads"}, True),
        title="example",
    )
    assert (config.flag, config.count, config.word) == (True, True, True)


def test_a_validator_of_the_recipe_may_read_truth_values_before():
    class Converting(RecipeConfig):
        count: Annotated[int, BeforeValidator(lambda value: 7 if value is True else value)] = 1

    assert configure(Converting, {"count": True}, title="example").count == 7


def test_text_becomes_the_type_of_the_field():
    settings = {
        "whole": "4",
        "real": "2e-1",
        "optional": "none",
        "listed": ["5"],
        "by_name": {"key": "0.5"},
        "fixed": ["1", "2.5"],
    }
    numbers = configure(Holder, {"numbers": settings}, title="example").numbers
    assert (numbers.whole, numbers.real, numbers.optional) == (4, 0.2, None)
    assert (numbers.listed, numbers.by_name, numbers.fixed) == ([5], {"key": 0.5}, (1, 2.5))


def test_whole_numbers_may_be_written_as_such_only():
    assert configure(Holder, {"own": 3.0}, title="example").own == 3
    assert reasons({"own": 3.5}, Holder) == {"own": "expected a valid integer, got 3.5"}
    assert reasons({"own": "3.5"}, Holder) == {"own": "expected a valid integer, got '3.5'"}


@pytest.mark.parametrize("value", ["none", None])
def test_the_word_none_means_none_at_every_depth(value):
    class Deep(RecipeConfig):
        inner: Numbers | None = Numbers()
        items: list[float | None] = Field([])
        named: float | None = Field(1.0, alias="full-name")
        kinds: list[Numbers | Descent | None] = Field([])

    settings = {"items": [1, value], "full-name": value, "kinds": [value]}
    config = configure(Deep, {**settings, "inner": {"optional": value}}, title="example")
    assert (config.items, config.named, config.kinds) == ([1, None], None, [None])
    assert config.inner.optional is None
    assert configure(Deep, {"inner": value}, title="example").inner is None


def test_a_model_that_is_used_in_many_places_is_refused_in_all_of_them():
    class Once(RecipeConfig):
        first: Network = Network()

    class Twice(Once):
        second: Network | None = None
        more: list[Network] = Field([])

    settings = {"first": {"width": True}, "second": {"width": True}, "more": [{"width": True}]}
    assert list(reasons(settings, Twice)) == ["first.width", "second.width", "more.0.width"]
    assert list(reasons({"first": {"width": True}}, Once)) == ["first.width"]
    with pytest.raises(ValidationError):
        Network(width=True)


def test_nothing_changes_later_at_any_depth():
    config = Experiment()
    for model, name in ((config, "seeds"), (config.encoder, "channels")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, 4)


def test_threads_are_left_to_torch_unless_they_are_given():
    assert RecipeConfig().threads is None
    for given, threads in ((3, 3), ("3", 3), ("none", None), (None, None)):
        assert configure(Example, {"threads": given}, title="example").threads == threads
    for wrong in (0, -1, "0", 1.5, True, "many"):
        assert list(reasons({"threads": wrong}, Example)) == ["threads"]
    assert RecipeConfig.model_fields["threads"].description


def test_the_model_describes_itself_as_before():
    schema = Experiment.model_json_schema()
    assert schema["properties"]["seeds"]["minimum"] == 1
    assert schema["properties"]["threads"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    assert Experiment().model_dump()["encoder"]["stem"] == {"width": 16, "layers": [1, 2]}
