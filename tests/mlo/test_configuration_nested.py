"""The paths and reasons of what does not fit in nested models, unions, mappings and aliases."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from mlo.configuration import RecipeConfig, Section, configure
from mlo.errors import ConfigurationError

from .configured import WHOLE, Adaptive, Cosine, Descent, Experiment, Network, Steps, reasons

KEYS = "there is no such setting; did you mean '{}'?"
TABLE = "expected a table of names and values, got {}"
TAGS = "expected 'descent' or 'adaptive', got {}"

CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a key two models deep": (
        {"encoder": {"stem": {"widht": 3}}},
        {"encoder.stem.widht": KEYS.format("width")},
    ),
    "an item of a list two models deep": (
        {"encoder": {"stem": {"layers": [1, "x"]}}},
        {"encoder.stem.layers.1": "expected a valid integer, got 'x'"},
    ),
    "a model that may be none": (
        {"teacher": {"channels": 0}},
        {"teacher.channels": "expected greater than or equal to 1, got 0"},
    ),
    "a model in a list": ({"blocks": [{}, {"widht": 3}]}, {"blocks.1.widht": KEYS.format("width")}),
    "a model in a mapping": (
        {"heads": {"left": {"precision": "singel"}}},
        {
            "heads.left.precision": "expected 'single' or 'double', got 'singel'; "
            "did you mean 'single'?"
        },
    ),
    "a name in a mapping that is no word": (
        {"heads": {"a.b c": {"dropout": 1}}},
        {'heads."a.b c".dropout': "expected less than 1, got 1"},
    ),
    "a key of a mapping": (
        {"levels": {"x": 1.5, "2": "y"}},
        {
            "levels.x": "expected a key that is a valid integer, got 'x'",
            "levels.2": "expected a valid number, got 'y'",
        },
    ),
    "a tuple": ({"crop": [1, "x"]}, {"crop.1": "expected a valid integer, got 'x'"}),
    "a tuple that is short": (
        {"crop": [1]},
        {"crop.1": "expected a value, got none; it has no default"},
    ),
    "a tuple that is long": (
        {"crop": [1, 2, 3]},
        {"crop": "expected a tuple with at most 2 items, got [1, 2, 3]"},
    ),
    "a value where a model is expected": ({"encoder": 3}, {"encoder": TABLE.format(3)}),
    "a value where tagged models are expected": (
        {"optimizer": "adaptive"},
        {"optimizer": TABLE.format("'adaptive'")},
    ),
    "a value where models are expected": ({"schedule": 3}, {"schedule": TABLE.format(3)}),
    "a key of a tagged model": (
        {"optimizer": {"kind": "descent", "momentm": 1}},
        {"optimizer.momentm": KEYS.format("momentum")},
    ),
    "a value in a tagged model in a list": (
        {"rivals": [{"kind": "adaptive", "betas": [1, "x"]}]},
        {"rivals.0.betas.1": "expected a valid integer, got 'x'"},
    ),
    "a tag": (
        {"rivals": [{"kind": "adaptiv"}]},
        {"rivals.0.kind": TAGS.format("'adaptiv'") + "; did you mean 'adaptive'?"},
    ),
    "no tag": (
        {"optimizer": {"momentum": 0.5}},
        {"optimizer.kind": TAGS.format("none") + "; it has no default"},
    ),
    "a tag's key": (
        {"optimizer": {"knid": "descent"}},
        {
            "optimizer.kind": TAGS.format("none") + "; it has no default",
            "optimizer.knid": KEYS.format("kind"),
        },
    ),
    "keys that no tagged model has, and no tag": (
        {"optimizer": {"momentm": 1, "betas": [1, 2]}},
        {
            "optimizer.kind": TAGS.format("none") + "; it has no default",
            "optimizer.momentm": KEYS.format("momentum"),
        },
    ),
    "keys that no tagged model has, and a wrong tag": (
        {"rivals": [{"kind": 3, "amplfy": 1, "betas": 3}]},
        {"rivals.0.kind": TAGS.format(3), "rivals.0.amplfy": KEYS.format("amplify")},
    ),
    "a key of the other tagged model": (
        {"optimizer": {"kind": "descent", "betas": [1, 2]}},
        {"optimizer.betas": "there is no such setting; known: 'kind', 'momentum'"},
    ),
    "a key of the first of two models": (
        {"schedule": {"perod": 3}},
        {
            "schedule.period": "expected a value, got none; it has no default",
            "schedule.perod": KEYS.format("period"),
        },
    ),
    "a key of the second of two models": (
        {"schedule": {"milestones": [1], "facto": 3}},
        {"schedule.facto": KEYS.format("factor")},
    ),
    "a value in the second of two models": (
        {"schedule": {"milestones": [1, "x"]}},
        {"schedule.milestones.1": "expected a valid integer, got 'x'"},
    ),
    "the whole of one of two models": (
        {"schedule": {"period": 3, "floor": 4}},
        {"schedule": "expected a floor of at most 3, got 4.0"},
    ),
    "a number that may be a word": (
        {"batch": 0},
        {"batch": "expected greater than or equal to 1 or 'whole' or 'automatic', got 0"},
    ),
    "a word that may be a number": (
        {"batch": "automatc"},
        {
            "batch": "expected a valid integer or 'whole' or 'automatic', got 'automatc'; "
            "did you mean 'automatic'?"
        },
    ),
    "an alias": (
        {"learning-rate": 0, "learning_rate": 1},
        {
            "learning-rate": "expected greater than 0, got 0",
            "learning_rate": KEYS.format("learning-rate"),
        },
    ),
    "a pattern": (
        {"label": "A"},
        {"label": "expected a string that matches pattern '^[a-z]*$', got 'A'"},
    ),
    "a key that stands too high": ({"dropout": 0}, {"dropout": KEYS.format("encoder.dropout")}),
    "a key that stands too high and is misspelt": (
        {"dropuot": 0},
        {"dropuot": KEYS.format("encoder.dropout")},
    ),
    "a key that stands too low": (
        {"encoder": {"stem": {"first_seed": 0}}},
        {"encoder.stem.first_seed": KEYS.format("first_seed")},
    ),
    "a key that stands in the wrong table": (
        {"encoder": {"momentum": 0}},
        {"encoder.momentum": KEYS.format("optimizer.momentum")},
    ),
    "a key of what a list holds": (
        {"milestones": [1]},
        {"milestones": KEYS.format("schedule.milestones")},
    ),
}


@pytest.mark.parametrize(("values", "said"), CASES.values(), ids=CASES)
def test_every_line_has_the_path_that_was_written_and_the_reason(values, said):
    assert reasons(values) == said


def test_settings_of_every_kind_are_taken():
    config = configure(Experiment, WHOLE, title="example")
    assert config.optimizer == Adaptive(kind="adaptive", betas=(0.5, 3), amplify=True)
    assert config.rivals == [Descent(kind="descent", momentum=0.5)]
    assert config.schedule == Cosine(period=10, floor=0.5)
    assert (config.batch, config.crop, config.levels, config.step_size) == (
        32,
        (3, 4),
        {3: 0.5},
        0.2,
    )
    other = {**WHOLE, "schedule": {"milestones": [1]}, "teacher": None}
    assert configure(Experiment, other, title="example").schedule == Steps(milestones=[1])


def test_mistakes_at_many_depths_are_reported_at_once():
    values = {name: value for case, _ in CASES.values() for name, value in case.items()}
    said = reasons(values)
    assert {path.partition(".")[0] for path in said} == values.keys()


def test_a_place_in_a_list_or_mapping_is_named_with_a_star():
    class Holder(RecipeConfig):
        parts: list[Network] = Field([])
        named: dict[str, Descent] = Field({})

    said = reasons({"width": 1, "momentum": 1}, Holder)
    assert said == {
        "width": KEYS.format("parts.*.width"),
        "momentum": KEYS.format("named.*.momentum"),
    }


def test_the_nearest_key_beside_a_wrong_one_goes_before_the_same_key_elsewhere():
    class Holder(RecipeConfig):
        widths: list[int] = Field([])
        network: Network = Network()

    assert reasons({"width": 1}, Holder) == {"width": KEYS.format("widths")}


def test_every_place_of_a_tuple_has_its_own_type():
    class Holder(RecipeConfig):
        pair: tuple[Network, Literal["small", "large"], int] | None = None

    assert reasons({"pair": [{"widht": 1}, "smal", "x"]}, Holder) == {
        "pair.0.widht": KEYS.format("width"),
        "pair.1": "expected 'small' or 'large', got 'smal'; did you mean 'small'?",
        "pair.2": "expected a valid integer, got 'x'",
    }


def test_aliases_are_the_names_that_are_known_and_told():
    class Aliased(Section):
        model_config = ConfigDict(populate_by_name=True)
        decay: float = Field(1.0, alias="weight-decay")

    class Holder(RecipeConfig):
        inner: Aliased = Aliased()
        rate: float = Field(1.0, validation_alias=AliasChoices("speed", "velocity"))
        needed: int = Field(alias="number")

    said = reasons(
        {"inner": {"weight-decay": "x", "deca": 1}, "velocity": "y", "velocty": 1, "rate": 1},
        Holder,
    )
    assert said["inner.weight-decay"] == "expected a valid number, got 'x'"
    assert said["inner.deca"] == KEYS.format("decay")
    assert said["velocity"] == "expected a valid number, got 'y'"
    assert said["velocty"] == KEYS.format("velocity")
    assert said["number"].startswith("expected a value, got none")
    assert said["rate"].endswith(
        "known: 'seeds', 'first_seed', 'threads', 'inner', 'speed', 'velocity', 'number'"
    )


def test_a_model_may_hold_others_of_its_kind():
    said = reasons({"tree": {"children": [{"sise": 1}, {"size": True}]}, "size": 1}, Forest)
    assert said == {
        "tree.children.0.sise": KEYS.format("size"),
        "tree.children.1.size": "expected a valid integer, got True",
        "size": KEYS.format("tree.size"),
    }


class Tree(Section):
    size: int = 1
    children: list[Tree] = Field([])


class Forest(RecipeConfig):
    tree: Tree = Tree()


def test_long_values_are_shown_without_their_middle():
    for value in ("x" * 1000, list(range(1000)), {"a" * 100: 1}):
        (said,) = reasons({"first_seed": value}).values()
        shown = said.removeprefix("expected a valid integer, got ")
        begin, end = shown.split(" ... ")
        assert len(shown) <= 60
        assert min(len(begin), len(end)) >= 25
        assert repr(value).startswith(begin)
        assert repr(value).endswith(end)
    exact = "x" * 58
    assert reasons({"first_seed": exact}) == {
        "first_seed": f"expected a valid integer, got '{exact}'"
    }


def test_every_mistake_is_one_line_whatever_is_written():
    said = reasons({"a\nb": 1, "first_seed": "two\nlines", "label": "two  spaces"})
    assert list(said) == ["first_seed", "label", '"a\\nb"']
    assert said["first_seed"].endswith("got 'two\\nlines'")
    assert said["label"].endswith("got 'two  spaces'")


def test_a_validator_of_the_whole_is_told_without_a_path():
    class Whole(RecipeConfig):
        size: int = 1

        @model_validator(mode="after")
        def _small(self) -> Whole:
            if self.size == 3:
                raise AssertionError("size: too large")
            if self.size == 2:
                raise ValueError("two is no size")
            return self

    for size, line in ((2, "two is no size"), (3, "size: too large")):
        with pytest.raises(ConfigurationError) as caught:
            configure(Whole, {"size": size}, title="example")
        assert str(caught.value) == f"example: a setting does not fit:\n  {line}"


def test_a_model_that_is_no_section_is_explained_as_well():
    class Free(BaseModel):
        model_config = ConfigDict(extra="forbid")
        width: int = 1

    class Holder(BaseModel):
        free: Free = Free()

    said = reasons({"free": {"widht": 1, "width": "x"}}, Holder)
    assert said == {
        "free.width": "expected a valid integer, got 'x'",
        "free.widht": KEYS.format("width"),
    }
