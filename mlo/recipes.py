"""The recipes that installed packages offer."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from mlo.plugins import Catalogue
from mlo.recipe import Recipe

RECIPES: Catalogue[Recipe[Any]] = Catalogue("mlo.recipes", Recipe, "recipe")  # type: ignore[type-abstract]
"""The recipes, which packages offer through the entry-point group `mlo.recipes`."""


def find_recipes() -> dict[str, EntryPoint]:
    """Find the recipes of all installed packages by name, without importing any.

    Raises:
        ConfigurationError: two packages offer the same name.
    """
    return RECIPES.find()


def load_recipe(name: str) -> Recipe[Any]:
    """Import a recipe.

    Raises:
        ConfigurationError: there is none of that name, or what is there is no recipe.
    """
    return RECIPES.load(name)
