"""Learning From Mistakes for data reweighting, declared as three problems.

    1. learner    W1* = argmin_W1 (1/n) sum_i b_i l(W1; d_i)        (b_i = 1 unless b is learned)
    2. relearner  W2* = argmin_W2 (1/n) sum_i a_i(W1*, V, r) l(W2; d_i)
    3. validator  min over V, r (and b) of  L(W2*; D_val)

The program is staged: no problem's loss reads a response to its own parameters. The validator's
whole gradient is a hypergradient; it comes through the relearner and, from there, through the
learner's mistakes where b is learned.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.lfm.settings import Settings
from problems.lfm.validator import Validator
from problems.lfm.weights import mistakes
from problems.training import Training


def train_loss(learner: nn.Module, train: Examples) -> Tensor:
    """Stage 1 without weights: (1/n) sum_i l(W1; d_i)."""
    x, labels, _ = train
    return F.cross_entropy(learner(x), labels)


def weighted_train_loss(learner: nn.Module, validator: Validator, train: Examples) -> Tensor:
    """Stage 1 with a free weight for each training example: (1/n) sum_i b_i l(W1; d_i)."""
    x, labels, index = train
    losses = F.cross_entropy(learner(x), labels, reduction="none")
    return (validator.stage1_weights_of(index) * losses).mean()


def relearn_loss(
    relearner: nn.Module,
    learner: nn.Module,
    validator: Validator,
    train: Examples,
    valid: Examples,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2: (1/n) sum_i a_i l(W2; d_i), with the mean weight as a metric."""
    x, labels, _ = train
    valid_x, valid_labels, _ = valid
    u = mistakes(learner(valid_x), valid_labels)
    a = validator(train, valid, u)
    losses = F.cross_entropy(relearner(x), labels, reduction="none")
    return (a * losses).mean(), {"weight": a.detach().mean()}


def validate_loss(relearner: nn.Module, valid: Examples) -> Tensor:
    """Stage 3: the relearner's mean cross-entropy on the validation batch."""
    x, labels, _ = valid
    return F.cross_entropy(relearner(x), labels)


def lfm_problems(
    learner: nn.Module,
    relearner: nn.Module,
    validator: Validator,
    *,
    ticks: int,
    training: Training | None = None,
    settings: Settings | None = None,
    hypergradient: mlo.Hypergradient | None = None,
    constant: tuple[str, ...] = (),
) -> list[mlo.Problem]:
    """Declare the program; it reads the streams `train` and `valid` of `(x, y, index)` batches.

    Args:
        learner: Network W1, whose mistakes count.
        relearner: Network W2, the result; start it from the same weights as W1 for a comparison.
        validator: Encoder, coefficients and, if it holds any, stage-1 weights.
        ticks: Length of the run, which the schedules need.
        training: Optimizer of both networks; the defaults of `Training` without it.
        settings: Optimizer of the validator; the defaults of `Settings` without it.
        hypergradient: Method for learner and relearner; one exact SGD step without it.
        constant: `("learner",)` cuts the path of the mistakes into stage 1: the relearner reads
            them, and no hypergradient goes through them.

    Returns:
        The problems from the lowest to the highest, for `mlo.Engine(..., lookahead=True)`.
    """
    training, settings = training or Training(), settings or Settings()
    method = hypergradient or mlo.OneStep()
    stage1 = train_loss if validator.stage1_weights is None else weighted_train_loss
    return [
        training.problem("learner", learner, stage1, ticks=ticks, hypergradient=method),
        training.problem(
            "relearner",
            relearner,
            relearn_loss,
            ticks=ticks,
            hypergradient=method,
            constant=constant,
            # The encoder runs in this loss only, so its running statistics are updated here.
            updates_buffers=("validator",),
        ),
        _validating(validator, ticks, settings),
    ]


def plain_problems(
    learner: nn.Module, *, ticks: int, training: Training | None = None
) -> list[mlo.Problem]:
    """Declare the baseline: the learner alone, same loss, optimizer and schedule, no weights.

    Args:
        learner: Network to train.
        ticks: Length of the run, which the schedule needs.
        training: Its optimizer; the defaults of `Training` without it.

    Returns:
        A program of one problem, which reads the stream `train`.
    """
    return [(training or Training()).problem("learner", learner, train_loss, ticks=ticks)]


def _validating(validator: Validator, ticks: int, settings: Settings) -> mlo.Problem:
    # An encoder without parameters, such as raw pixels, is allowed.
    groups = [
        {"params": validator.encoder.parameters(), "lr": settings.encoder_rate},
        {"params": [validator.coefficients], "lr": settings.coefficient_rate},
        {"params": validator.stage1_parameters(), "lr": settings.stage1_rate},
    ]
    return settings.problem("validator", groups, validate_loss, ticks=ticks, module=validator)
