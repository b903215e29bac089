"""Several classifiers trained side by side on the same batches, whose probabilities are averaged.

    members   min over w_1, ..., w_M of  sum_k (1/n) sum_i l(w_k; d_i)      on `train`

The losses share no variable, so each member is trained as if it were alone, but for a bound on the
norm of the gradient, which is that of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.training import Training


class Ensemble(nn.Module):
    """Classifiers whose predicted probabilities are averaged.

    Args:
        members: from inputs to logits [n, K].
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, [n, K]."""
        each = torch.stack([F.log_softmax(member(x), dim=1) for member in self.members])
        return each.logsumexp(0) - math.log(len(self.members))


def ensemble_loss(members: Ensemble, train: Examples) -> Tensor:
    """The sum of the members' mean cross-entropies."""
    x, labels, _ = train
    losses = [F.cross_entropy(member(x), labels) for member in members.members]
    return torch.stack(losses).sum()


def ensemble_problems(
    networks: Sequence[nn.Module], training: Training, *, ticks: int
) -> list[mlo.Problem]:
    """Declare the program.

    Args:
        networks: the members, each with a start of its own.
        training: their optimizer; a bound on the norm of the gradient is over all of them.
        ticks: length of the run.
    """
    return [training.problem("members", Ensemble(networks), ensemble_loss, ticks=ticks)]
