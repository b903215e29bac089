"""A free weight for every training example ("data hyper-cleaning").

    classifier   w*(v) = argmin_w (1/n) sum_i sigmoid(v_i) l_i(w)     on `train`
    weights      min_v (1/m) sum_j l_j(w*(v))                         on `valid`

Source: L. Franceschi et al., "Forward and Reverse Gradient-Based Hyperparameter Optimization",
ICML 2017, section 5.1; the sigmoid is that of F. Pedregosa, "Hyperparameter optimization with
approximate gradient", ICML 2016, and its successors.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.reweighting.losses import example_losses, weighted_mean
from problems.reweighting.programs.judging import valid_loss
from problems.training import Training, Upper


class LearnedWeightsSettings(Upper):
    """The weights and their optimizer."""

    rate: float = Field(0.1, ge=0, description="rate of the logits v of the weights")
    initial: float = Field(0.0, description="start value of every logit")
    unit_mean: bool = Field(False, description="divide the weights of a batch by their mean")


class ExampleWeights(nn.Module):
    """The weights sigmoid(v_i) of N training examples.

    Args:
        examples: N.
        initial: start value of every v_i.
    """

    def __init__(self, examples: int, initial: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((examples,), initial))

    def forward(self, index: Tensor) -> Tensor:
        """Weights of the examples at `index`, [n]."""
        return torch.sigmoid(self.logits[index])


def learned_problems(
    network: nn.Module,
    weights: ExampleWeights,
    training: Training,
    settings: LearnedWeightsSettings,
    *,
    ticks: int,
    hypergradient: mlo.Hypergradient | None = None,
) -> list[mlo.Problem]:
    """Declare the program, for `mlo.Engine(..., lookahead=True)`.

    Args:
        network: the classifier.
        weights: one for each training example.
        training: the classifier's optimizer.
        settings: the weights' optimizer.
        ticks: length of the run.
        hypergradient: method of the classifier; one exact SGD step without it.
    """

    def weighted_loss(
        classifier: nn.Module, weights: ExampleWeights, train: Examples
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, labels, index = train
        w = weights(index)
        losses = example_losses(classifier(x), labels)
        loss = weighted_mean(w, losses, unit_mean=settings.unit_mean)
        return loss, {"weight": w.detach().mean()}

    groups = [{"params": weights.parameters(), "lr": settings.rate}]
    return [
        training.problem(
            "classifier", network, weighted_loss, ticks=ticks, hypergradient=hypergradient
        ),
        settings.problem("weights", groups, valid_loss, ticks=ticks, module=weights),
    ]
