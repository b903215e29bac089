"""The recipes that installed packages offer."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mlo.errors import ConfigurationError, listed, nearest
from mlo.recipe import Recipe

GROUP = "mlo.recipes"
"""Entry-point group through which packages offer recipes."""


def find_recipes() -> dict[str, EntryPoint]:
    """Find the recipes of all installed packages by name, without importing any.

    Raises:
        ConfigurationError: two packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigurationError(
                f"recipe '{entry.name}': expected one package to offer it, found "
                f"'{other.value}' and '{entry.value}'; uninstall one of them"
            )
    return dict(sorted(found.items()))


def load_recipe(name: str) -> Recipe[Any]:
    """Import a recipe.

    Raises:
        ConfigurationError: there is none of that name, or what is there is no recipe.
    """
    known = find_recipes()
    if name not in known:
        raise ConfigurationError(
            f"recipe: expected one of {listed(known)}, got '{name}'{nearest(name, known)}; "
            "recipes come with installed packages, and 'mlo list' shows them"
        )
    recipe = known[name].load()
    if not isinstance(recipe, Recipe) or recipe.name != name:
        what = f"the recipe '{recipe.name}'" if isinstance(recipe, Recipe) else repr(recipe)
        raise ConfigurationError(
            f"recipe '{name}': expected '{known[name].value}' to be an instance of "
            f"mlo.recipe.Recipe with this name, found {what}; correct the package that offers it"
        )
    return recipe
