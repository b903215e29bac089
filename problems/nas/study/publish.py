"""`python -m problems.nas.study.publish`: pictures and tables of the study's page.

Draws docs/images/nas_*.png from the committed results, and writes the tables of docs/nas-study.md
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from problems.nas.study.pictures import accuracy_figure, choices_figure
from problems.nas.study.rendering import (
    accuracy_rows,
    choice_rows,
    compute_rows,
    genotype_rows,
    seed_rows,
    tuned_rows,
)
from problems.publishing import ROOT, publish
from problems.tables import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ROOT / "benchmarks/results/nas_study.json"
PAGE = ROOT / "docs/nas-study.md"

TABLES: Mapping[str, Callable[[Mapping[str, Any]], Rows]] = {
    "accuracy": accuracy_rows,
    "choices": choice_rows,
    "tuned": tuned_rows,
    "compute": compute_rows,
    "seeds": seed_rows,
    "genotypes": genotype_rows,
}
"""Name in the page -> what renders it."""

PICTURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "docs/images/nas_accuracy.png": accuracy_figure,
    "docs/images/nas_choices.png": choices_figure,
}
"""Place in the repository -> what draws it."""

if __name__ == "__main__":
    publish(RESULTS, PAGE, TABLES, PICTURES)
