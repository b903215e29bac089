"""The architecture of a search: one number for each candidate of each edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.space import SearchSpace


class Architecture(nn.Module):
    """Architecture parameters α of a space, and the mixing weights that they stand for.

        w_ek = exp(α_ek) / Σ_l exp(α_el)    over the candidates l of edge e; 0 where it has none

    Args:
        space: the search space.
        scale: standard deviation of the start of α, from the global generator of torch.
    """

    def __init__(self, space: SearchSpace, *, scale: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        for part, edges in space.parts.items():
            shape = space.shape(part)
            setattr(self, f"alpha_{part}", nn.Parameter(scale * torch.randn(shape)))
            counts = torch.tensor([[len(edge.operations)] for edge in edges])
            absent = torch.arange(shape[1]) >= counts
            self.register_buffer(f"absent_{part}", absent if absent.any() else None, False)

    def forward(self) -> dict[str, Tensor]:
        """Return the mixing weights [E, O] of each part; every row sums to one."""
        mixing = {}
        for part in self.space.parts:
            alpha, absent = getattr(self, f"alpha_{part}"), getattr(self, f"absent_{part}")
            if absent is not None:
                alpha = alpha.masked_fill(absent, -torch.inf)
            mixing[part] = torch.softmax(alpha, -1)
        return mixing

    @torch.no_grad()
    def genotype(self) -> Genotype | MacroGenotype:
        """Derive the genotype that α stands for now; see `SearchSpace.genotype`."""
        return self.space.genotype(self())
