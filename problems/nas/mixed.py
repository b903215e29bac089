"""The candidates of an edge in a search network, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from problems.nas.operations import POOLING, Zero, layers_of, make_operation
from problems.nas.space import Edge

Weights = Sequence[Tensor]
"""The mixing weights of one edge, each a tensor without dimensions."""


class Candidates(nn.Module):
    """The operations of one edge: Σ_k w_k o_k(x), over the candidates that the edge has.

    Batch normalization has no learned scale, since the weights do the scaling, and stands behind
    pooling too (DARTS, Section A.1). "none" adds nothing: it is not computed, and the gradient of
    its weight is zero.

    Args:
        edge: the edge.
        channels: of the input and of the result.
        stride: of all operations.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(self, edge: Edge, channels: int, stride: int, dimensions: int) -> None:
        super().__init__()
        self.columns = [k for k, name in enumerate(edge.operations) if name != "none"]
        self.operations = nn.ModuleList(
            _candidate(name, channels, stride, dimensions) for name in edge.choices
        )
        self.zero = Zero(stride, dimensions)

    def forward(self, x: Tensor, weights: Weights, total: Tensor | None = None) -> Tensor:
        """Return the weighted sum, added to `total` where there is one."""
        for k, operation in zip(self.columns, self.operations, strict=True):
            y = operation(x)
            total = weights[k] * y if total is None else torch.addcmul(total, weights[k], y)
        return self.zero(x) if total is None else total


def unbound(mixing: Tensor) -> list[Weights]:
    """Return the weights of each edge of a part, taken apart once for a whole forward pass."""
    return [row.unbind() for row in mixing.unbind()]


def _candidate(name: str, channels: int, stride: int, dimensions: int) -> nn.Module:
    operation = make_operation(name, channels, stride, affine=False, dimensions=dimensions)
    if name in POOLING:
        norm = layers_of(dimensions).norm(channels, affine=False)
        return nn.Sequential(operation, norm)
    return operation
