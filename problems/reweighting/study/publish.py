"""`python -m problems.reweighting.study.publish`: pictures and tables of the study's page.

Draws docs/images/reweighting_*.png from the committed results, and writes the tables of
docs/reweighting-study.md anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from problems.publishing import ROOT, publish
from problems.reweighting.study.pictures import (
    ablation_figure,
    accuracy_figure,
    reliability_figure,
    weights_figure,
)
from problems.reweighting.study.rendering import (
    ablation_rows,
    accuracy_rows,
    chosen_rows,
    similarity_rows,
    weight_rows,
)
from problems.tables import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ROOT / "benchmarks/results/reweighting_study.json"
PAGE = ROOT / "docs/reweighting-study.md"

TABLES: Mapping[str, Callable[[Mapping[str, Any]], Rows]] = {
    "accuracy": accuracy_rows,
    "ablations": ablation_rows,
    "weights": weight_rows,
    "similarity": similarity_rows,
    "chosen": chosen_rows,
}
"""Name in the page -> what renders it."""

PICTURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "docs/images/reweighting_accuracy.png": accuracy_figure,
    "docs/images/reweighting_ablations.png": ablation_figure,
    "docs/images/reweighting_weights.png": weights_figure,
    "docs/images/reweighting_reliability.png": reliability_figure,
}

if __name__ == "__main__":
    publish(RESULTS, PAGE, TABLES, PICTURES)
