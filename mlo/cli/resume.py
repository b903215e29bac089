"""A run that was cut off, with the recipe and the configuration that it began with."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mlo.configuration import RecipeConfig, configure
from mlo.errors import RunFolderError
from mlo.files import read_json
from mlo.recipe import Recipe
from mlo.recipes import load_recipe
from mlo.recorded import read_run
from mlo.run_folder import RunFolder
from mlo.versions import environment

Resumed = tuple[Recipe[Any], RecipeConfig, RunFolder, list[str]]
"""Recipe, configuration, folder, and a line for each version that is another one now."""


@contextlib.contextmanager
def resumed(path: pathlib.Path) -> Iterator[Resumed]:
    """Take up a run in the `with` statement; nothing is changed where that is refused.

    Raises:
        RunFolderError: it is no run folder, the run is complete or in use, or its recipe has other
            stages now.
        ConfigurationError: its recipe is not installed, or no longer takes its settings.
    """
    state = read_run(path).state  # looks at everything in it
    settings = read_json(path / "config.json")
    recipe = load_recipe(str(state.get("recipe")))
    config: RecipeConfig = configure(recipe.config, settings, title=f"{path / 'config.json'}")
    stages = {stage.name: stage.ticks for stage in recipe.stages(config)}
    if state.get("stages") != stages:
        raise RunFolderError(
            f"run folder: the run in '{path}' has the stages {state.get('stages')}, but the recipe "
            f"'{recipe.name}' now has {stages}; run it anew"
        )
    changes = list(differences(read_json(path / "versions.json"), environment()))
    with RunFolder.resume(path) as folder:
        yield recipe, config, folder, changes


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A line for each entry that is not what it was."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old != new:
            yield f"{name}: the run began with {_written(old)}, and goes on with {_written(new)}"


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
