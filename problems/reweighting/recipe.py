"""The recipe `reweighting`: any of the programs on any of the data sets, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from mlo.metrics import Metric
from mlo.recipe import Recipe, Stage
from mlo.stage_folder import StageFolder, slug
from problems.naming import blaming
from problems.reweighting import setups
from problems.reweighting.config import ReweightingConfig
from problems.reweighting.losses import class_balanced_weights
from problems.reweighting.pictures import pictures
from problems.reweighting.presets import PRESETS
from problems.reweighting.scene import Scene
from problems.reweighting.tables import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlo.recorded import RecordedRun

BUILDS = {
    "plain": setups.plain,
    "plain+valid": setups.plain_with_valid,
    "focal": setups.focal,
    "class-balanced": setups.class_balanced,
    "fine-tuning": setups.fine_tuning,
    "ensemble": setups.ensemble,
    "l2rw": setups.l2rw,
    "meta-weight-net": setups.meta_weight_net,
    "learned-weights": setups.learned_weights,
    "lfm": setups.lfm,
}
"""Program -> what makes its stage."""


class Reweighting(Recipe[ReweightingConfig]):
    """Trains a classifier by each of the programs, for every seed, and compares them.

    All stages of a seed share data, start and order of the batches. Fine-tuning goes on where
    plain training ended, so plain training is run with it.
    """

    name = "reweighting"
    summary = "Weights for noisy or imbalanced data: LFM, Meta-Weight-Net, L2RW and others"
    config = ReweightingConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def stages(self, config: ReweightingConfig) -> Sequence[Stage[ReweightingConfig]]:
        """One for each program, in the order of `BUILDS`."""
        wanted = set(config.programs) | ({"plain"} if "fine-tuning" in config.programs else set())
        ticks = {"fine-tuning": config.fine_tuning.ticks}
        return [
            Stage(name, ticks.get(name, config.ticks), build)
            for name, build in BUILDS.items()
            if name in wanted
        ]

    def check(self, config: ReweightingConfig) -> None:
        """Build the stages of the first repetition, and draw the data of all of them."""
        super().check(config)
        for seed in config.seed_range:
            scene = Scene(config, seed)
            if "class-balanced" in config.programs:
                with blaming(f"seed {seed}"):
                    class_balanced_weights(scene.task.counts, config.class_balanced.beta)

    def tables(self, config: ReweightingConfig, metrics: Sequence[Metric]) -> Sequence[Table]:
        """A row for each network."""
        return tables(describe(config), metrics)

    def notes(self, config: ReweightingConfig) -> Sequence[str]:
        """What the numbers are taken on."""
        on = "test examples" if config.held_per_class is None else "clean held-out examples"
        return [
            f"accuracies on {on} after the last tick, nothing is selected by them; the spread is "
            "the standard deviation over the seeds."
        ]

    def about(self, config: ReweightingConfig) -> str:
        """Data and corruption."""
        return describe(config)

    def plots(self, config: ReweightingConfig, run: RecordedRun) -> Iterator[tuple[str, Figure]]:
        """Confusion matrices, accuracy of each class, and weights of right and wrong labels."""
        kept: dict[str, dict[int, Mapping[str, Any]]] = {}
        for stage in run.stages:
            if stage.done:
                folder = StageFolder(run.path / f"seed-{stage.seed}" / slug(stage.name))
                kept.setdefault(stage.name, {})[stage.seed] = folder.carry()[stage.name]
        yield from pictures(kept, describe(config))


def describe(config: ReweightingConfig) -> str:
    """Name data and corruption in a few words."""
    noise = f"{config.noise} noise {config.rate:g}" if config.noisy else "no label noise"
    tail = "" if config.imbalance is None else f", imbalance {1 / config.imbalance:g}"
    held = "" if config.held_per_class is None else ", held-out examples"
    return f"{config.load().source}, {noise}{tail}{held}"


recipe = Reweighting()
