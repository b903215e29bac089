"""Learning to Reweight (L2RW): the weights of a batch are one gradient step from zero.

    classifier   w*(eps) = argmin_w sum_i eps_i l_i(w)     on `train`
    weights      min_eps (1/m) sum_j l_j(w*(eps))          on `valid`

Before each of its moves eps begins at zero; the classifier's trial step then has no gradient and is
what momentum and weight decay make of it (in the paper, whose trial step is plain SGD, it leads
nowhere). One step of rate 1 along the negative hypergradient, cut at zero and divided by its sum,
gives the weights with which the classifier then moves. The scale of that step cancels in the
division.

The weights are those of one batch, so the method must differentiate one step only. At eps = 0 the
Hessian of the classifier's loss is zero: methods that solve with it have nothing to solve with.

Source: M. Ren et al., "Learning to Reweight Examples for Robust Deep Learning", ICML 2018,
eq. 5 to 10 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import mlo
from mlo.errors import ConfigurationError, DataError
from problems.datasets.sets import Examples
from problems.reweighting.losses import example_losses
from problems.reweighting.programs.judging import valid_loss
from problems.training import Training


def weighted_loss(classifier: nn.Module, weights: nn.ParameterDict, train: Examples) -> Tensor:
    """The sum of eps_i l_i; the weights sum to 1, so it is a weighted mean."""
    x, labels, _ = train
    if len(labels) != len(weights["epsilon"]):
        raise DataError(
            f"train: expected batches of {len(weights['epsilon'])} examples, one for each weight, "
            f"found {len(labels)}. Give `batch_size` as it is, and drop a last batch that is not "
            "full."
        )
    return (weights["epsilon"] * example_losses(classifier(x), labels)).sum()


def normalized(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut eps at zero and divide it by its sum; all zero where nothing is positive (eq. 8, 9)."""
    positive = params["epsilon"].clamp(min=0)
    total = positive.sum()
    return {"epsilon": positive / torch.where(total == 0, torch.ones_like(total), total)}


def l2rw_problems(
    network: nn.Module,
    training: Training,
    *,
    batch_size: int,
    ticks: int,
    hypergradient: mlo.Hypergradient | None = None,
) -> list[mlo.Problem]:
    """Declare the program, for `mlo.Engine(..., lookahead=True)`.

    Args:
        network: the classifier.
        training: its optimizer.
        batch_size: examples n of a training batch, all of one size.
        ticks: length of the run.
        hypergradient: method of the classifier; one exact SGD step without it.

    Raises:
        ConfigurationError: the method differentiates several steps, whose batches have other
            weights.
    """
    one = hypergradient is None or (hypergradient.reach in (1, None) and not hypergradient.carries)
    if not one:
        raise ConfigurationError(
            f"hypergradient: expected a method of one step, found {hypergradient}, which goes "
            "through steps on other batches; their weights are not these. Use OneStep()."
        )

    def start() -> dict[str, Tensor]:
        return {"epsilon": torch.zeros_like(weights.module["epsilon"])}  # type: ignore[index]

    weights = mlo.Problem(
        "weights",
        params={"epsilon": torch.zeros(batch_size)},
        loss=valid_loss,
        optimizer=lambda params: torch.optim.SGD(params, 1.0),
        start=start,
        project=normalized,
    )
    return [
        training.problem(
            "classifier", network, weighted_loss, ticks=ticks, hypergradient=hypergradient
        ),
        weights,
    ]
