"""Validated settings: a pydantic model, and one readable error for all that does not fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, Field

from mlo.errors import ConfigurationError, listed
from mlo.files import json_text
from mlo.pydantic_errors import find_misfits
from mlo.section import NONE, Section
from mlo.setting_types import places

__all__ = ["NONE", "RecipeConfig", "Section", "check_written", "combine", "configure"]

Model = TypeVar("Model", bound=BaseModel)


class RecipeConfig(Section):
    """Base of the configurations of recipes; what it holds nested derives from `Section`.

    Attributes:
        seeds: how often the whole experiment is repeated.
        first_seed: the seed of the first repetition; the others follow it.
        threads: how many CPU threads torch may use; None leaves that to torch.
    """

    seeds: int = Field(1, ge=1, description="repetitions, each with a seed of its own")
    first_seed: int = Field(0, ge=0, description="seed of the first repetition")
    threads: int | None = Field(
        None, ge=1, description="CPU threads; as torch has set them where none"
    )

    @property
    def seed_range(self) -> range:
        """The seeds of all repetitions."""
        return range(self.first_seed, self.first_seed + self.seeds)


def check_written(model: type[Model], config: Model) -> None:
    """Make sure that a configuration is the same after it was written to a file of JSON and read.

    Raises:
        ConfigurationError: it is not; the message names the settings.
    """
    written = json.loads(json_text(config.model_dump(mode="json", by_alias=True)))
    again = configure(model, written, title=f"{model.__name__}, read back from config.json")
    pairs = {name: (getattr(config, name), getattr(again, name)) for name in model.model_fields}
    # NaN is not itself, but what was NaN and is NaN is the same setting.
    other = [n for n, (a, b) in pairs.items() if a != b and not (a != a and b != b)]  # noqa: PLR0124
    if other:
        raise ConfigurationError(
            f"{model.__name__}: expected settings that a file can hold, but {listed(other)} would "
            "be read back as another value; correct how the fields are serialized"
        )


def combine(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over each other: a preset, then a file, then options.

    Args:
        layers: nested settings. Where several have a key, the last one wins; tables under the
            same key are combined in the same way. The layers stay as they are.

    Returns:
        New settings that share nothing with the layers.
    """
    combined: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = combined.get(key)
            if isinstance(value, Mapping):
                combined[key] = combine(below if isinstance(below, Mapping) else {}, value)
            else:
                combined[key] = copy.deepcopy(value)
    return combined


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
        found = find_misfits(model, [(detail["loc"], detail) for detail in error.errors()])
        count = f"{len(found)} settings do" if len(found) > 1 else "a setting does"
        lines = "\n".join(f"  {misfit.sentence(places(model))}" for misfit in found)
        raise ConfigurationError(f"{title}: {count} not fit:\n{lines}") from error
