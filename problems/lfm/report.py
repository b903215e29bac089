"""The results of the reweighting experiment as a table."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from mlo.metrics import Key, Metric, by_key, mean, spread
from problems.lfm.config import ReweightingConfig
from problems.tables import cell

NETWORKS: dict[str, Key] = {
    "plain": ("plain", "learner", "accuracy"),
    "plain+val": ("plain+val", "learner", "accuracy"),
    "learner": ("LFM", "learner", "accuracy"),
    "relearner": ("LFM", "relearner", "accuracy"),
}
"""What is compared: plain training, the same on the validation images too, and LFM's networks."""

WEIGHTS: dict[str, Key] = {
    "a clean": ("LFM", "weights", "clean"),
    "a corrupted": ("LFM", "weights", "corrupted"),
}
"""Mean final weight of the training examples with right and with wrong labels."""


def table(config: ReweightingConfig, metrics: Sequence[Metric]) -> Table:
    """Draw the results: a row for each seed, then mean and spread over the seeds.

    Args:
        config: the experiment, for the title.
        metrics: the final metrics of all stages.
    """
    found = by_key(metrics)
    # Means of right and wrong labels tell something only where both occur.
    weights = WEIGHTS if all(key in found for key in WEIGHTS.values()) else {}
    drawn = Table(
        title=f"{escape(describe(config))}: test accuracy in % after {config.ticks} ticks"
        + (", and mean weight a of the training examples" if weights else ""),
        box=box.SIMPLE_HEAD,
    )
    drawn.add_column("seed")
    columns = []
    for heading, key in {**NETWORKS, **weights}.items():
        drawn.add_column(heading, justify="right")
        columns.append((found.get(key, {}), (100, 1) if heading in NETWORKS else (1, 3)))
    for seed in dict.fromkeys(metric.seed for metric in metrics):
        drawn.add_row(str(seed), *(cell(of.get(seed), *style) for of, style in columns))
    drawn.add_section()
    values = [(list(of.values()), style) for of, style in columns]
    means = [cell(mean(v) if v else None, *style) for v, style in values]
    drawn.add_row("mean", *means, style="bold")
    drawn.add_row("spread", *(cell(spread(v), *style) for v, style in values))
    return drawn


def describe(config: ReweightingConfig) -> str:
    """Name the data in a few words."""
    noise = f"{config.noise} noise {config.rate:g}" if config.noisy else "no label noise"
    tail = "" if config.imbalance is None else f", imbalance {config.imbalance:g}"
    name = config.dataset if config.data is None else pathlib.Path(config.data).name
    return f"{name}, {noise}{tail}"
