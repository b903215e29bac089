"""Tables of a run: the networks in the mean and for every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mlo.metrics import Key, Metric, by_key, mean, spread
from problems.reweighting.readings import network_name
from problems.tables import cell

_SEEDS = 5
"""The most seeds that have a column each."""

Found = Mapping[Key, Mapping[int, float]]


def tables(title: str, metrics: Sequence[Metric]) -> list[Table]:
    """A row for each network: accuracy, worst class and weights, then the accuracy of each seed.

    The second table is left out for a single seed, which it would repeat, and beyond five.

    Args:
        title: above the first table.
        metrics: (stage, network, "accuracy"), (stage, network, "worst class"), and
            (stage, "weights", "clean" or "corrupted") of all seeds; others are not shown.
    """
    found = by_key(metrics)
    networks = [key for key in found if key[2] == "accuracy"]
    if not networks:
        return []
    seeds = sorted({seed for key in networks for seed in found[key]})
    drawn = [_means(title, found, networks, len(seeds))]
    if 2 <= len(seeds) <= _SEEDS:
        drawn.append(_each_seed(found, networks, seeds))
    return drawn


def _means(title: str, found: Found, networks: Sequence[Key], seeds: int) -> Table:
    table = _table(title)
    if seeds > 1:
        table.caption = f"means and sample standard deviation over {seeds} seeds"
    columns = {
        "accuracy\n%": [cell(mean(found[key].values()), 100, 2) for key in networks],
        "spread\n%": [cell(spread([*found[key].values()]), 100, 2) for key in networks],
    }
    optional = {
        "worst\nclass %": (
            [(stage, network, "worst class") for stage, network, _ in networks],
            100,
        ),
        "weight\nclean": ([(stage, "weights", "clean") for stage, *_ in networks], 1),
        "weight\ncorrupted": ([(stage, "weights", "corrupted") for stage, *_ in networks], 1),
    }
    for heading, (keys, scale) in optional.items():
        if any(key in found for key in keys):
            digits = 2 if scale == 100 else 3
            values = [mean(found[key].values()) if key in found else None for key in keys]
            columns[heading] = [cell(value, scale, digits) for value in values]
    return _filled(table, networks, columns)


def _each_seed(found: Found, networks: Sequence[Key], seeds: Sequence[int]) -> Table:
    columns = {
        f"seed {seed}": [cell(found[key].get(seed), 100, 2) for key in networks] for seed in seeds
    }
    return _filled(_table("accuracy in % of each seed"), networks, columns)


def _table(title: str) -> Table:
    return Table(title=Text(title), box=box.SIMPLE_HEAD)


def _filled(table: Table, networks: Sequence[Key], columns: Mapping[str, Sequence[str]]) -> Table:
    table.add_column("program", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for (stage, network, _), *cells in zip(networks, *columns.values(), strict=True):
        table.add_row(Text(network_name(stage, network)), *cells)
    return table
