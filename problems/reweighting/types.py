"""What the losses of this library are handed."""

from __future__ import annotations

from torch import Tensor

Examples = tuple[Tensor, Tensor, Tensor]
"""A batch: inputs [n, ...], labels [n], and positions in the data set [n]."""
