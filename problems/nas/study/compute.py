"""How much the searches and the trainings of the study compute, in floating-point operations."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import mlo
from mlo.configuration import combine, configure
from mlo.recipe import Carry
from problems.nas.genotype import read_genotype
from problems.nas.passes import OperationCounter
from problems.nas.recipe import recipe
from problems.nas.scene import Scene
from problems.nas.setups import training
from problems.nas.study.plan import COMMON


def operations(own: Mapping[str, Any]) -> int:
    """Operations of matrix products and convolutions in one tick of a program's first stage.

    Args:
        own: settings over those of `COMMON`; one program.
    """
    config = configure(recipe.config, combine(COMMON, own), title=recipe.name)
    return _of_a_tick(recipe.stages(config)[0].setup(config, 0, Carry()).engine)


def _of_a_tick(engine: mlo.Engine) -> int:
    engine.step()  # the first tick makes what later ones only use
    with OperationCounter() as counter:
        engine.step()
    return counter.count


@functools.cache
def training_operations(genotype: str) -> int:
    """Those of a tick of training the network of a genotype, in JSON, from scratch."""
    scene = _scene()
    return _of_a_tick(training(scene, scene.network(read_genotype(genotype))))


@functools.lru_cache(maxsize=1)
def _scene() -> Scene:
    return Scene(configure(recipe.config, combine(COMMON), title=recipe.name), 0)


def given(genotype: str) -> dict[str, Any]:
    """The settings under which a genotype is trained."""
    return {"programs": ["given"], "genotype": genotype}
