"""Data sets as tensors: loading, splitting, corruption and streams of batches.

Everything random takes a `torch.Generator`, so one seed per part makes a run repeatable.
"""

from __future__ import annotations

from problems.datasets.arrays import load_arrays
from problems.datasets.corruption import Corruption, corrupt, flip_noise, uniform_noise
from problems.datasets.digits import load_digits
from problems.datasets.files import find_file, find_path
from problems.datasets.fingerprint import fingerprint
from problems.datasets.image_folder import ImageFolder, decoded
from problems.datasets.image_layouts import image_folders
from problems.datasets.imbalance import Subset, long_tail, long_tail_counts
from problems.datasets.loading import DATA_SETS, load_data_set
from problems.datasets.sets import DataSet, Labelled
from problems.datasets.splits import MetaSplit, Split, balanced_split, stratified_split
from problems.datasets.streams import stream
from problems.datasets.transitions import (
    KINDS,
    flip_matrix,
    hierarchical_matrix,
    transition_matrix,
    uniform_matrix,
)

__all__ = [
    "DATA_SETS",
    "KINDS",
    "Corruption",
    "DataSet",
    "ImageFolder",
    "Labelled",
    "MetaSplit",
    "Split",
    "Subset",
    "balanced_split",
    "corrupt",
    "decoded",
    "find_file",
    "find_path",
    "fingerprint",
    "flip_matrix",
    "flip_noise",
    "hierarchical_matrix",
    "image_folders",
    "load_arrays",
    "load_data_set",
    "load_digits",
    "long_tail",
    "long_tail_counts",
    "stratified_split",
    "stream",
    "transition_matrix",
    "uniform_matrix",
    "uniform_noise",
]
