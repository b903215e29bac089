"""`python -m problems.nas.benchmarks.cost_page`: the table of docs/nas-cost.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from problems.publishing import ROOT, Numbers, publish
from problems.tables import Rows

RESULTS = ROOT / "benchmarks/results/nas_cost.json"
PAGE = ROOT / "docs/nas-cost.md"

REFERENCE = {
    "learner": "7 F 4 B 2 B_A",
    "relearner": "5 F 3 B 2 B_A 1 DB",
    "encoder": "4 F 2 B",
}
"""Passes of a step of the authors' code, darts-lfm with --unrolled: its order is lookahead, A by
differences, a by an exact product; a forward pass for its log is left out."""

_NAMES = {"forward": "F", "backward": "B", "partial": "B_A", "double": "DB"}


def cost_rows(numbers: Numbers) -> Rows:
    """Passes through each network in a tick: the reference's, the fewest, and those counted."""
    heads = ["program", "method", "order", "network", "reference", "least", "counted", "GFLOP"]
    rows = [heads]
    for tick in numbers["ticks"]:
        for network, counted in tick["passes"].items():
            compared = tick["lookahead"] and tick["program"] == "lfm"
            rows.append(
                [
                    tick["program"],
                    tick["method"],
                    "architecture first" if tick["lookahead"] else "networks first",
                    network,
                    REFERENCE[network] if compared else "",
                    _words(tick["least"][network]),
                    _words(counted),
                    f"{tick['operations'] / 1e9:.1f}",
                ]
            )
    return rows


def _words(passes: Mapping[str, Any]) -> str:
    """Such as "2 F 2 B 1 DB"."""
    return " ".join(f"{count} {_NAMES[kind]}" for kind, count in passes.items() if count)


TABLES = {"cost": cost_rows}

if __name__ == "__main__":
    publish(RESULTS, PAGE, TABLES, {})
