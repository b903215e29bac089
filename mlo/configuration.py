"""Validated settings: a pydantic model, and one readable error for all that does not fit."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import ErrorDetails

from mlo.errors import ConfigurationError, listed, nearest

Model = TypeVar("Model", bound=BaseModel)

NONE = "none"
"""How `None` is written on the command line and in TOML, which has no word for it."""


class RecipeConfig(BaseModel):
    """Base of the configurations of recipes: unknown keys are errors, and nothing changes later.

    Attributes:
        seeds: how often the whole experiment is repeated.
        first_seed: the seed of the first repetition; the others follow it.
        threads: CPU threads of torch; None leaves them as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: int = Field(1, ge=1, description="repetitions, each with a seed of its own")
    first_seed: int = Field(0, ge=0, description="seed of the first repetition")
    threads: int | None = Field(
        None, ge=1, description="CPU threads; as torch has set them where none"
    )

    @property
    def seed_range(self) -> range:
        """The seeds of all repetitions."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """Read the word ``none`` as `None` in fields that allow it."""
        if not isinstance(values, Mapping):
            return values
        return {
            key: None if value == NONE and optional(cls, key) else value
            for key, value in values.items()
        }


def optional(model: type[BaseModel], name: str) -> bool:
    """Tell whether the field of that name may be `None`."""
    field = model.model_fields.get(name)
    return field is not None and types.NoneType in typing.get_args(field.annotation)


def configure(model: type[Model], values: Mapping[str, Any], *, title: str) -> Model:
    """Check settings and fill in the defaults.

    Args:
        model: names, types and defaults.
        values: the settings that were given.
        title: what is configured; the error begins with it.

    Returns:
        The complete configuration.

    Raises:
        ConfigurationError: some settings do not fit; the message lists every one of them.
    """
    try:
        return model.model_validate(dict(values))
    except pydantic.ValidationError as error:
        found = error.errors()
        count = f"{len(found)} settings do" if len(found) > 1 else "a setting does"
        lines = "\n".join(f"  {_sentence(model, detail)}" for detail in found)
        raise ConfigurationError(f"{title}: {count} not fit:\n{lines}") from error


def _sentence(model: type[BaseModel], error: ErrorDetails) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "the whole"
    if error["type"] == "extra_forbidden":
        known = _names_beside(model, error["loc"])
        hint = nearest(str(error["loc"][-1]), known) or f"; known: {listed(known)}"
        return f"{path}: there is no such setting{hint}"
    if error["type"] == "missing":
        return f"{path}: expected a value, got none; it has no default"
    # Pydantic puts this before the message of a ValueError that a validator raised.
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = re.findall(r"'([^']*)'", error["msg"]) if error["type"] == "literal_error" else ()
    if error["type"] == "value_error":
        return f"{path}: {reason}" if error["loc"] else reason
    return f"{path}: expected {reason}, got {error['input']!r}" + nearest(
        str(error["input"]), expected
    )


def _names_beside(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Names of the fields beside the last one of a path into nested models."""
    *parents, _ = path
    for part in parents:
        field = model.model_fields.get(str(part))
        nested = None if field is None else field.annotation
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        model = nested
    return list(model.model_fields)
