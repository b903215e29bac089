"""One problem, no levels: the network of a genotype, trained from scratch.

    network   min_w CE(f(w; x), y) + λ CE(f'(w; x), y)

f' is the auxiliary head, where there is one (`evaluation_loss`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import mlo
from problems.datasets.sets import Examples
from problems.nas.losses import check_evaluation, evaluation_loss
from problems.nas.networks import MacroNetwork, check_drop_path, refuse_drop_path
from problems.training import Training

EVALUATION_TRAINING = Training(learning_rate=0.025, momentum=0.9, weight_decay=3e-4, clip_norm=5.0)
"""How DARTS trains on CIFAR: the rate falls to zero as half a cosine."""


def evaluation_problems(
    network: nn.Module,
    *,
    ticks: int,
    training: Training | None = None,
    auxiliary_weight: float = 0.4,
    drop_path: float = 0.2,
    label_smoothing: float = 0.0,
) -> list[mlo.Problem]:
    """Declare the training of a network from scratch, on the stream `train`.

    The probability of dropping a path in tick t is p t / ticks. In the code of DARTS it grows once
    per epoch, p e / epochs; the two are equal at the first tick of each epoch. Ticks behind the
    last one that was declared have p.

    Cost: one forward and one backward pass a tick, with those of the auxiliary head.

    Args:
        network: what `make_network` builds.
        ticks: length of the run.
        training: optimizer and schedule; `EVALUATION_TRAINING` if None.
        auxiliary_weight: λ; it counts only for a network with an auxiliary head.
        drop_path: p in [0, 1), where the ramp ends; 0 for a chain.
        label_smoothing: share of each label that is given to all classes alike.

    Raises:
        ConfigurationError: A number is not in its range, or a chain is to drop paths.
    """
    check_evaluation(auxiliary_weight=auxiliary_weight, label_smoothing=label_smoothing)
    check_drop_path(drop_path)
    if isinstance(network, MacroNetwork):
        refuse_drop_path(drop_path)

    def loss(network: Any, train: Examples, tick: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, labels, _ = train
        outputs = network.with_auxiliary(x, drop_path * min(tick / ticks, 1.0))
        return evaluation_loss(
            outputs, labels, auxiliary_weight=auxiliary_weight, label_smoothing=label_smoothing
        )

    training = EVALUATION_TRAINING if training is None else training
    return [training.problem("network", network, loss, ticks=ticks)]
