"""The recipes that installed packages offer."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from mlo.errors import ConfigurationError, listed, nearest
from mlo.plugins import load, offered
from mlo.recipe import Recipe

GROUP = "mlo.recipes"
"""Entry-point group through which packages offer recipes."""


def find_recipes() -> dict[str, EntryPoint]:
    """Find the recipes of all installed packages by name, without importing any.

    Raises:
        ConfigurationError: two packages offer the same name.
    """
    return offered(GROUP, "recipe")


def load_recipe(name: str) -> Recipe[Any]:
    """Import a recipe.

    Raises:
        ConfigurationError: there is none of that name, or what is there is no recipe.
    """
    known = find_recipes()
    if name not in known:
        raise ConfigurationError(
            f"recipe: expected one of {listed(known)}, got '{name}'{nearest(name, known)} "
            "(recipes come with installed packages; 'mlo list' shows them)"
        )
    recipe = load(known[name], "recipe")
    if not isinstance(recipe, Recipe) or recipe.name != name:
        what = f"the recipe '{recipe.name}'" if isinstance(recipe, Recipe) else repr(recipe)
        raise ConfigurationError(
            f"recipe '{name}': expected '{known[name].value}' to be an instance of "
            f"mlo.recipe.Recipe with this name, found {what}; correct the package that offers it"
        )
    return recipe
