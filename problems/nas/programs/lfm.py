r"""Learning From Mistakes for architecture search, declared as three problems.

    1. learner    W1* = argmin_W1 L(W1, A; D_train)
    2. relearner  W2* = argmin_W2 (1/n) sum_i a_i(W1*, A, V, r) l(W2, A; d_i)
    3. architect  min over A, V, r of  L(W2*, A; D_valid)

    a_i = sigmoid( sum_j r_j x_ij(V) z_ij u_j ),    u_j = l(W1*, A; d_j),  d_j from D_valid

The architecture A enters all three stages, and the mistakes u both through W1* and directly, so
its gradient has four terms. The validator (V, r) and its options are those of `problems.lfm`.

Source: L. Zhang, B. Garg, P. Sridhara, R. Hosseini and P. Xie, "Learning From Mistakes: A
Multilevel Optimization Framework", IEEE Transactions on Artificial Intelligence 6(6), 2025.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.lfm.weights import mistakes
from problems.nas.architect import Architect
from problems.nas.settings import LFM_TRAINING, ArchitectSettings
from problems.training import Training


def learn_loss(learner: nn.Module, architect: Architect, train: Examples) -> Tensor:
    """Stage 1: the learner's mean cross-entropy on the training batch."""
    x, labels, _ = train
    return F.cross_entropy(learner(x, architect.architecture()), labels)


def weigh(learner: nn.Module, architect: Architect, train: Examples, valid: Examples) -> Tensor:
    """The weights a [n] of a training batch, from the learner's mistakes on a validation batch."""
    x, labels, _ = valid
    u = mistakes(learner(x, architect.architecture()), labels)
    return architect.validator(train, valid, u)


def relearn_loss(
    relearner: nn.Module,
    learner: nn.Module,
    architect: Architect,
    train: Examples,
    valid: Examples,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2: (1/n) sum_i a_i l(W2, A; d_i), with the mean weight as a metric."""
    x, labels, _ = train
    a = mlo.once(weigh, learner, architect, train, valid)
    losses = F.cross_entropy(relearner(x, architect.architecture()), labels, reduction="none")
    return (a * losses).mean(), {"weight": a.detach().mean()}


def validate_loss(relearner: nn.Module, architect: Architect, valid: Examples) -> Tensor:
    """Stage 3: the relearner's mean cross-entropy on the validation batch."""
    x, labels, _ = valid
    return F.cross_entropy(relearner(x, architect.architecture()), labels)


def lfm_problems(
    learner: nn.Module,
    relearner: nn.Module,
    architect: Architect,
    *,
    ticks: int,
    training: Training | None = None,
    settings: ArchitectSettings | None = None,
    hypergradient: mlo.Hypergradient | None = None,
    constant: tuple[str, ...] = (),
) -> list[mlo.Problem]:
    """Declare the search; it reads the streams `train` and `valid` of `(x, y, index)` batches.

    Args:
        learner: Search network W1, whose mistakes count.
        relearner: Search network W2, of the same space; its architecture is the result.
        architect: Architecture, encoder and coefficients.
        ticks: Length of the run, which the schedules need.
        training: Optimizer of both networks; `LFM_TRAINING` without it.
        settings: Optimizer of the architect; the defaults of `ArchitectSettings` without it.
        hypergradient: Method for learner and relearner; one exact SGD step without it.
        constant: `("learner",)` cuts the path of the mistakes into stage 1: no hypergradient goes
            through W1*. The mistakes' direct dependence on A stays.

    Returns:
        The problems `learner`, `relearner` and `architect`, for `mlo.Engine`; with
        `lookahead=True` in the order of the paper.
    """
    training, method = training or LFM_TRAINING, hypergradient or mlo.OneStep()
    return [
        training.problem("learner", learner, learn_loss, ticks=ticks, hypergradient=method),
        training.problem(
            "relearner",
            relearner,
            relearn_loss,
            ticks=ticks,
            hypergradient=method,
            constant=constant,
            # The encoder runs in this loss only, so its running statistics are updated here.
            updates_buffers=("architect",),
        ),
        _architecting(architect, ticks, settings or ArchitectSettings()),
    ]


def _architecting(architect: Architect, ticks: int, settings: ArchitectSettings) -> mlo.Problem:
    validator, decay = architect.validator, {"weight_decay": settings.validator_weight_decay}
    # An encoder without parameters, such as raw pixels, is allowed.
    groups = [
        {"params": architect.architecture.parameters(), "lr": settings.rate},
        {"params": validator.encoder.parameters(), "lr": settings.encoder_rate, **decay},
        {"params": [validator.coefficients], "lr": settings.coefficient_rate, **decay},
    ]
    return settings.problem("architect", groups, validate_loss, ticks=ticks, module=architect)
