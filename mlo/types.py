"""The type names that all files share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]
"""Tensors of one problem, in the order of its variables."""

PartialTensors: TypeAlias = tuple[Tensor | None, ...]
"""The same, with `None` where nothing depends."""

Values: TypeAlias = Mapping[str, Tensors]
"""Problem name -> its tensors."""

Batch: TypeAlias = Mapping[str, Any]
"""Stream name -> one batch (any pytree of tensors)."""
