r"""Differentiable architecture search, declared as two problems.

    1. network       w* = argmin_w L(w, A; D_train)
    2. architecture  min over A of L(w*(A), A; D_valid)

Source: H. Liu, K. Simonyan and Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
eq. 3 and 4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.nas.architecture import Architecture
from problems.nas.settings import DARTS_TRAINING, ArchitectureSettings
from problems.training import Training


def train_loss(network: nn.Module, architecture: Architecture, train: Examples) -> Tensor:
    """The mean cross-entropy of the network on the training batch."""
    return _cross_entropy(network, architecture, train)


def valid_loss(network: nn.Module, architecture: Architecture, valid: Examples) -> Tensor:
    """The same on the validation batch."""
    return _cross_entropy(network, architecture, valid)


def darts_problems(
    network: nn.Module,
    architecture: Architecture,
    *,
    ticks: int,
    training: Training | None = None,
    upper: ArchitectureSettings | None = None,
    hypergradient: mlo.Hypergradient | None = None,
) -> list[mlo.Problem]:
    """Declare the search; it reads the streams `train` and `valid` of `(x, y, index)` batches.

    The two orders of the paper, and the exact second one:

    | order | `hypergradient` | engine |
    |---|---|---|
    | first | `mlo.Direct()` | `lookahead=False`: judged at the weights as they are |
    | second, by differences (eq. 8) | `mlo.FiniteDifference(radius=0.01)` | `lookahead=True` |
    | second, exact (eq. 7) | `mlo.OneStep()` | `lookahead=True` |

    Any other method serves too. The paper's unrolled step leaves the bound on the gradient's norm
    out; here the step that is differentiated is the one that the optimizer makes, with its bound,
    momentum and weight decay.

    Args:
        network: Search network; its `forward` takes inputs and mixing weights.
        architecture: What the mixing weights are made of.
        ticks: Length of the run, which the schedules need.
        training: Optimizer of the network; `DARTS_TRAINING` without it.
        upper: Optimizer of the architecture; the defaults of `ArchitectureSettings` without it.
        hypergradient: Method for the network; one exact SGD step without it.

    Returns:
        The problems `network` and `architecture`, for `mlo.Engine`.
    """
    upper, method = upper or ArchitectureSettings(), hypergradient or mlo.OneStep()
    # To first order nothing answers, so no gradient need be pulled back to the weights.
    constant = ("network",) if isinstance(method, mlo.Direct) else ()
    return [
        (training or DARTS_TRAINING).problem(
            "network",
            network,
            train_loss,
            ticks=ticks,
            hypergradient=method,
        ),
        upper.problem(
            "architecture",
            [{"params": architecture.parameters(), "lr": upper.rate}],
            valid_loss,
            ticks=ticks,
            module=architecture,
            constant=constant,
        ),
    ]


def _cross_entropy(network: nn.Module, architecture: Architecture, batch: Examples) -> Tensor:
    x, labels, _ = batch
    return F.cross_entropy(network(x, architecture()), labels)
