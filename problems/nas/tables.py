"""The results of the recipe for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mlo.metrics import Metric, by_key, mean, spread
from problems.tables import cell


def tables(title: str, programs: Sequence[str], metrics: Sequence[Metric]) -> list[Table]:
    """A row for each program: accuracy and size of its network, and skip connections of its cell.

    Args:
        title: above the table.
        programs: in their order; those without a result yet are left out.
        metrics: of all stages that are over; others than these are not shown.
    """
    found = by_key(metrics)
    table = Table(title=Text(title), box=box.SIMPLE_HEAD)
    table.add_column("program", overflow="fold")
    for head in ("accuracy\n%", "spread\n%", "parameters\nthousands", "skip\nconnections"):
        table.add_column(head, justify="right", no_wrap=True)
    for program in programs:
        accuracies = found.get((f"{program} evaluation", "network", "accuracy"))
        if accuracies is None:
            continue
        sizes = found[f"{program} evaluation", "network", "parameters"]
        skips = found[f"{program} evaluation", "network", "skip connections"]
        table.add_row(
            Text(program),
            cell(mean(accuracies.values()), 100, 2),
            cell(spread([*accuracies.values()]), 100, 2),
            cell(mean(sizes.values()), 1e-3, 1),
            cell(mean(skips.values()), 1, 1),
        )
    return [table] if table.row_count else []
