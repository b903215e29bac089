"""Packages that offer recipes and methods, made for each test and put where Python finds them."""

from __future__ import annotations

import importlib
import pathlib
import sys
import textwrap

TINY = """
    import torch
    from pydantic import Field

    import mlo
    from mlo.recipe import Recipe, RecipeConfig, Setup, Stage

    class Config(RecipeConfig):
        steps: int = Field(3, ge=1, description="steps of each stage")
        rate: float = Field(0.25, description="learning rate")

    def loss(point):
        return 0.5 * point["x"].square().sum()

    def distance(point):
        return point["x"].abs().sum()

    class Tiny(Recipe):
        name, summary, config = "tiny", "A parabola walked down.", Config
        presets = {"fast": {"rate": 0.5}}

        def stages(self, config):
            return [Stage("walk", config.steps, self.walk)]

        def walk(self, config, seed, carry):
            start = {"x": torch.tensor(1.0 + seed)}
            engine = mlo.Engine([mlo.Problem("point", params=start, loss=loss,
                optimizer=lambda params: torch.optim.SGD(params, config.rate))])
            module = engine.problems["point"].module
            finish = lambda: {"x": module["x"]}
            return Setup(engine, {"x": (distance, 1)}, finish)

        def notes(self, config):
            return ["a note with [brackets] and :smile:"]

    recipe = Tiny()
"""
"""A recipe of one stage whose point is (1 + seed) (1 - rate)^steps in the end."""

CHAIN = TINY.replace('"tiny"', '"chain"').replace(
    'return [Stage("walk", config.steps, self.walk)]',
    'return [Stage("walk", config.steps, self.walk), Stage("go on", config.steps, self.go_on)]',
) + textwrap.dedent("""
    def go_on(self, config, seed, carry):
        start = {"x": carry["x"].clone()}
        engine = mlo.Engine([mlo.Problem("point", params=start, loss=loss,
            optimizer=lambda params: torch.optim.SGD(params, config.rate))])
        module = engine.problems["point"].module
        return Setup(engine, {"x": (distance, 1)}, lambda: {"y": module["x"]})

    Tiny.go_on = go_on
""").replace("\n", "\n    ")
"""The same with a second stage that goes on where the first one ended."""

METHOD = """
    import dataclasses
    import mlo

    @dataclasses.dataclass(frozen=True)
    class Mine(mlo.Direct):
        '''A method of another package.'''

    nothing = 3
"""


def install(folder: pathlib.Path, monkeypatch, name: str, code: str, entries: str) -> pathlib.Path:
    """Put a distribution with one module and some entry points where Python finds it.

    Returns the folder that has to be on the path of a process that shall find it too.
    """
    site = folder / f"site-{name}"
    info = site / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))
    (site / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return site
