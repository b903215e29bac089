"""Which member of a union a value was meant for, and how a tagged one is found."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import pytest
from pydantic import Discriminator, Field, Tag

from mlo.configuration import RecipeConfig, Section

from .configured import reasons
from .test_configuration_nested import KEYS


def test_members_that_fit_equally_well_share_a_line():
    class Few(Section):
        size: int = 1

    class Word(Section):
        size: Literal["small", "large"] = "small"

    class Holder(RecipeConfig):
        part: Few | Word = Few()

    assert reasons({"part": {"size": "smal"}}, Holder) == {
        "part.size": "expected a valid integer or 'small' or 'large', got 'smal'; "
        "did you mean 'small'?"
    }


def test_of_members_that_fit_equally_well_but_differently_the_first_is_meant():
    class Few(Section):
        size: int = 1
        depth: int = 1

    class Word(Section):
        size: Literal["small", "large"] = "small"
        depth: str = "a"

    class Holder(RecipeConfig):
        part: Few | Word = Few()

    assert reasons({"part": {"size": 1, "depth": "x"}}, Holder) == {
        "part.depth": "expected a valid integer, got 'x'"
    }


def test_the_tag_is_found_among_other_words_and_by_its_alias():
    class A(Section):
        mode: Literal["a", "b"] = "a"
        kind: Literal["a"] = Field("a", alias="sort")
        size: int = 1

    class B(Section):
        mode: Literal["a", "b"] = "a"
        kind: Literal["b"] = Field("b", alias="sort")
        depth: int = 1

    class Holder(RecipeConfig):
        part: A | B = Field(A(), discriminator="kind")

    assert reasons({"part": {"sort": "b", "dept": 1}}, Holder) == {
        "part.dept": KEYS.format("depth")
    }
    assert reasons({"part": {"sort": "c"}}, Holder) == {"part.sort": "expected 'a' or 'b', got 'c'"}


@pytest.mark.parametrize("turned", [False, True])
def test_the_member_whose_keys_were_written_is_the_one_that_was_meant(turned):
    class Near(Section):
        distance: float = 1.0

    class Far(Section):
        altitude: float
        azimuth: float = 0.0

    class Holder(RecipeConfig):
        place: (Far | Near if turned else Near | Far) | None = None

    for values, said in (
        ({"altitude": "x"}, {"place.altitude": "expected a valid number, got 'x'"}),
        ({"altitude": 1, "azimut": 1}, {"place.azimut": KEYS.format("azimuth")}),
        ({"distanc": 1}, {"place.distanc": KEYS.format("distance")}),
        (
            {"altitud": 1},
            {
                "place.altitude": "expected a value, got none; it has no default",
                "place.altitud": KEYS.format("altitude"),
            },
        ),
    ):
        assert reasons({"place": values}, Holder) == said


def test_a_tag_may_be_found_by_a_function_and_be_an_enum():
    class Kind(enum.StrEnum):
        A = "first"
        B = "second"

    class A(Section):
        kind: Literal[Kind.A] = Kind.A
        size: int = 1

    class B(Section):
        kind: Literal[Kind.B] = Kind.B
        depth: int = 1

    def tag(value):
        return "deep" if "depth" in value else "wide" if "size" in value else None

    class Holder(RecipeConfig):
        tagged: A | B = Field(A(), discriminator="kind")
        found: Annotated[
            Annotated[A, Tag("wide")] | Annotated[B, Tag("deep")], Discriminator(tag)
        ] = A()

    said = reasons({"tagged": {"kind": "second", "dept": 1}, "found": {"size": "x"}}, Holder)
    assert said == {
        "tagged.dept": KEYS.format("depth"),
        "found.size": "expected a valid integer, got 'x'",
    }
    said = reasons({"tagged": {"kind": "secnd"}, "found": {}}, Holder)
    assert said["tagged.kind"] == (
        "expected 'first' or 'second', got 'secnd'; did you mean 'second'?"
    )
    assert "tag" in said["found"]
