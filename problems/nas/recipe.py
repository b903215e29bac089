"""The recipe `nas`: search for an architecture, then train what was found from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from mlo.metrics import Metric
from mlo.recipe import Recipe, Stage
from mlo.stage_folder import StageFolder, slug
from problems.naming import blaming
from problems.nas import setups
from problems.nas.config import SEARCHED, NASConfig
from problems.nas.presets import PRESETS
from problems.nas.scene import Scene, space_of
from problems.nas.shown import pictures
from problems.nas.tables import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlo.recorded import RecordedRun


class NAS(Recipe[NASConfig]):
    """Searches by each of the programs, for every seed, and trains what each has found.

    All programs of a seed share data, start and order of the batches. A program has two stages,
    "... search" and "... evaluation"; `random` and `given` have the second only.
    """

    name = "nas"
    summary = "Architecture search: DARTS and Learning From Mistakes, from search to network"
    config = NASConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def stages(self, config: NASConfig) -> Sequence[Stage[NASConfig]]:
        """Search and evaluation of each program, in the order they are named."""
        stages: list[Stage[NASConfig]] = []
        for program in config.programs:
            search, evaluation = f"{program} search", f"{program} evaluation"
            if program in SEARCHED:
                build = setups.search(program, search)
                stages.append(Stage(search, config.search.ticks, build))
            build = setups.evaluation(program, evaluation, search)
            stages.append(Stage(evaluation, config.evaluation.ticks, build))
        return stages

    def check(self, config: NASConfig) -> None:
        """Split the data of all repetitions, try a network of the space, and build the first one.

        All networks of a space take the same inputs, so one that is drawn tells whether the one
        that will be found can be built.
        """
        for seed in config.seed_range:
            with blaming(f"seed {seed}"):
                scene = Scene(config, seed)
        if config.searches:
            setups.training(scene, scene.network(scene.random_genotype()))
        super().check(config)  # last, as it costs most

    def tables(self, config: NASConfig, metrics: Sequence[Metric]) -> Sequence[Table]:
        """A row for each program."""
        return tables(describe(config), config.programs, metrics)

    def notes(self, config: NASConfig) -> Sequence[str]:
        """What the numbers are taken on."""
        on = {
            "all": "accuracies on the test set after the last tick, by networks trained on all "
            "training examples",
            "search": "accuracies on the share of the training set that architectures are judged "
            "on, by networks trained on the other",
        }[config.evaluation.on]
        return [f"{on}; the spread is the standard deviation over the seeds."]

    def about(self, config: NASConfig) -> str:
        """Data and search space."""
        return describe(config)

    def plots(self, config: NASConfig, run: RecordedRun) -> Iterator[tuple[str, Figure]]:
        """Genotypes, mixing weights over time, and skip connections over time."""
        kept: dict[str, dict[int, Mapping[str, Any]]] = {}
        for stage in run.stages:
            if stage.done:
                folder = StageFolder(run.path / f"seed-{stage.seed}" / slug(stage.name))
                kept.setdefault(stage.name, {})[stage.seed] = folder.carry()[stage.name]
        yield from pictures(kept, space_of(config), describe(config))


def describe(config: NASConfig) -> str:
    """Name data and search space in a few words."""
    space = {"macro": "chain of {} layers", "cell": "cells, {} layers"}[config.space]
    layers = config.search.layers if config.searches else config.evaluation_layers
    what = "a given genotype" if config.programs == ("given",) else space.format(layers)
    return f"{config.load().source}, {what}"


recipe = NAS()
"""The recipe, as it is offered to the command line."""
