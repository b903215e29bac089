"""Data sets as tensors: loading, splitting, corruption and streams of batches.

Everything random takes a `torch.Generator`, so one seed per part makes a run repeatable.
"""

from __future__ import annotations

from problems.datasets.arrays import load_arrays
from problems.datasets.corruption import (
    Corruption,
    corrupt,
    flip_matrix,
    flip_noise,
    uniform_matrix,
    uniform_noise,
)
from problems.datasets.digits import load_digits
from problems.datasets.files import find_file
from problems.datasets.imbalance import Subset, long_tail, long_tail_counts
from problems.datasets.splits import Split, stratified_split
from problems.datasets.streams import stream

__all__ = [
    "Corruption",
    "Split",
    "Subset",
    "corrupt",
    "find_file",
    "flip_matrix",
    "flip_noise",
    "load_arrays",
    "load_digits",
    "long_tail",
    "long_tail_counts",
    "stratified_split",
    "stream",
    "uniform_matrix",
    "uniform_noise",
]
