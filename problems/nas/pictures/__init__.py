"""Pictures of a search: genotypes, mixing weights and skip connections over time."""

from __future__ import annotations

from problems.nas.pictures.genotypes import genotype_figure
from problems.nas.pictures.mixing import Labels, derived, mixing_figure
from problems.nas.pictures.over_time import difference_figure, skips_figure
from problems.nas.pictures.words import genotype_line

__all__ = [
    "Labels",
    "derived",
    "difference_figure",
    "genotype_figure",
    "genotype_line",
    "mixing_figure",
    "skips_figure",
]
