"""Meta-Weight-Net: the weight of an example is a learned function of its loss.

    classifier   w*(theta) = argmin_w (1/n) sum_i V(l_i; theta) l_i(w)      on `train`
    weight_net   min_theta (1/m) sum_j l_j(w*(theta))                       on `valid`

In V the loss counts as a number: nothing is differentiated through it. So the weighted loss is
no function whose minimum is sought, and methods that take the classifier as its solution leave
out how the weights answer to the losses; one-step methods are exact. With `lookahead=True` a tick
is the algorithm of the paper: a trial step of the classifier, a step of the weight net through
it, then the real step with the new weights.

Source: J. Shu et al., "Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting",
NeurIPS 2019, eq. 1 to 5 and algorithm 1.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.reweighting.losses import example_losses, weighted_mean
from problems.reweighting.programs.judging import valid_loss
from problems.training import Training, Upper


class MetaWeightNetSettings(Upper):
    """The weight net and its optimizer."""

    rate: float = Field(1e-3, ge=0, description="rate of the weight net")
    hidden: int = Field(100, ge=1, description="hidden units of the weight net")
    unit_mean: bool = Field(False, description="divide the weights of a batch by their mean")


class WeightNet(nn.Sequential):
    """V: from losses [n, 1] to weights in (0, 1), [n, 1], by one hidden layer.

    Args:
        hidden: its units.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())

    def weights(self, losses: Tensor) -> Tensor:
        """Weights of losses l_i, [n], which count as numbers."""
        found: Tensor = self(losses.detach().unsqueeze(1))
        return found.squeeze(1)


def meta_weight_net_problems(
    network: nn.Module,
    weight_net: WeightNet,
    training: Training,
    settings: MetaWeightNetSettings,
    *,
    ticks: int,
    hypergradient: mlo.Hypergradient | None = None,
) -> list[mlo.Problem]:
    """Declare the program, for `mlo.Engine(..., lookahead=True)`.

    Args:
        network: the classifier.
        weight_net: V.
        training: the classifier's optimizer.
        settings: the weight net's optimizer.
        ticks: length of the run.
        hypergradient: method of the classifier; one exact SGD step without it.
    """

    def weighted_loss(
        classifier: nn.Module, weight_net: WeightNet, train: Examples
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, labels, _ = train
        losses = example_losses(classifier(x), labels)
        weights = weight_net.weights(losses)
        loss = weighted_mean(weights, losses, unit_mean=settings.unit_mean)
        return loss, {"weight": weights.detach().mean()}

    groups = [{"params": weight_net.parameters(), "lr": settings.rate}]
    return [
        training.problem(
            "classifier", network, weighted_loss, ticks=ticks, hypergradient=hypergradient
        ),
        settings.problem("weight_net", groups, valid_loss, ticks=ticks, module=weight_net),
    ]
