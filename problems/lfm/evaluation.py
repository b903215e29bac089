"""What weights and similarities of a run are, over whole data sets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mlo.modes import preserved_modes
from problems.evaluation import CHUNK, Prepare, predict
from problems.lfm.validator import Validator
from problems.lfm.weights import mistakes

Labelled = tuple[Tensor, Tensor]
"""Images [N, ...] and labels [N]."""


@torch.no_grad()
def training_weights(
    validator: Validator,
    learner: nn.Module,
    train: Labelled,
    valid: Labelled,
    prepare: Prepare | None = None,
) -> Tensor:
    """Weigh the whole training set by the whole validation set, in evaluation mode.

    With coefficients keyed by slot the first M validation examples stand for the set.

    Args:
        validator: Encoder and coefficients.
        learner: Network W1.
        train: Images [N, ...] and labels [N].
        valid: Images [M, ...] and labels [M].
        prepare: Applied to images first.

    Returns:
        Weights a_i, [N].
    """
    if validator.keyed_by == "slot":
        valid = valid[0][: len(validator.coefficients)], valid[1][: len(validator.coefficients)]
    u = mistakes(predict(learner, valid[0], prepare), valid[1])
    clean = _examples(*valid, prepare)
    with preserved_modes([validator]):
        validator.eval()
        weights = [
            validator.weights(_examples(*part, prepare), clean, u) for part in _chunks(train)
        ]
    return validator.scaled(torch.cat(weights))


@torch.no_grad()
def similarity_summary(
    validator: Validator, train: Labelled, valid: Labelled, prepare: Prepare | None = None
) -> dict[str, float]:
    """How the similarity of the whole training set to the whole validation set is spread.

    Args:
        validator: Its encoder is looked at.
        train: Images [N, ...] and labels [N].
        valid: Images [M, ...] and labels [M].
        prepare: Applied to images first.

    Returns:
        `nearest`: the mean over i of max_j x_ij, near 1 where a single validation example decides;
        `same class`: the mean over i of sum_j x_ij z_ij, the part that can count at all.
    """
    clean = _examples(*valid, prepare)
    nearest, same = [], []
    with preserved_modes([validator]):
        validator.eval()
        for part in _chunks(train):
            x, z = validator.similarity(_examples(*part, prepare), clean)
            nearest.append(x.amax(1))
            same.append((x * z).sum(1))
    return {
        "nearest": torch.cat(nearest).mean().item(),
        "same class": torch.cat(same).mean().item(),
    }


def _chunks(part: Labelled) -> Iterable[Labelled]:
    return zip(*(t.split(CHUNK) for t in part), strict=True)


def _examples(x: Tensor, labels: Tensor, prepare: Prepare | None) -> tuple[Tensor, Tensor, Tensor]:
    """Images ready for a network, labels and positions."""
    return prepare(x) if prepare else x, labels, torch.arange(len(x), device=x.device)
