"""Small settings of the recipe, small data, and the stages run without a folder."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

import mlo
from mlo.carry import Carry
from mlo.configuration import combine, configure
from mlo.run_result import RunResult
from problems.datasets import DataSet
from problems.nas.config import NASConfig
from problems.nas.recipe import recipe

OPERATIONS = ("skip_connect", "conv_1x1", "conv_3x3")
SMALL: dict[str, Any] = {
    "seeds": 1,
    "evaluations": 3,
    "operations": OPERATIONS,
    "search": {
        "ticks": 6,
        "channels": 2,
        "layers": 3,
        "train_batch": 12,
        "valid_batch": 10,
        "lfm": {"encoder": {"width": 3, "features": 4}},
    },
    "evaluation": {"ticks": 5, "channels": 3, "batch": 16},
}


def config(*programs: str, **own: Any) -> NASConfig:
    """A configuration that runs in a second."""
    return configure(NASConfig, combine(SMALL, {"programs": list(programs)}, own), title="nas")


class Done(NamedTuple):
    """A stage that was run."""

    engine: mlo.Engine
    result: RunResult
    handed: dict[str, Any]

    def module(self, problem: str) -> torch.nn.Module:
        return self.engine.problems[problem].module


def repeat(settings: NASConfig, seed: int = 0, stages: int | None = None) -> dict[str, Done]:
    """Run the first stages of one seed, all without a number, and write nothing."""
    done, carry = {}, Carry()
    for stage in recipe.stages(settings)[:stages]:
        with stage.seeded(seed):
            made = stage.built(settings, seed, carry)
            result = made.engine.run(
                stage.ticks, evaluate=made.evaluate, callbacks=[*made.callbacks]
            )
            handed = made.finish()
        carry = carry.and_then(handed)
        done[stage.name] = Done(made.engine, result, handed[stage.name])
    return done


def numbered(tests: int | None = 20, classes: int = 4) -> DataSet:
    """Examples that say which one they are: every input is full of its number, tests from 1000."""
    sizes = [40, 24, 16, 12]  # of the classes
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    x = torch.arange(float(len(labels))).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    tested = None
    if tests is not None:
        t = 1000 + torch.arange(float(tests)).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        tested = t.contiguous(), torch.arange(tests) % classes
    return DataSet("digits", "numbers", "f" * 64, (x.contiguous(), labels), tested, classes)
