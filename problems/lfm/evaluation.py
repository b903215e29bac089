"""What a finished run is judged by: accuracy, and whether the weights tell wrong labels apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlo.modes import preserved_modes
from problems.lfm.validator import Validator
from problems.lfm.weights import mistakes


def accuracy(network: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Share of right predictions in evaluation mode; the mode of the network is restored.

    Args:
        network: Classifier from [N, ...] to logits [N, K].
        x: Inputs, [N, ...].
        labels: Classes, [N].

    Returns:
        A number from 0 to 1.
    """
    return (_evaluate(network, x).argmax(1) == labels).double().mean().item()


@torch.no_grad()
def training_weights(
    validator: Validator,
    learner: nn.Module,
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
) -> Tensor:
    """Weigh the whole training set by the whole validation set, in evaluation mode.

    With coefficients keyed by slot the first M validation examples stand for the set.

    Args:
        validator: Encoder and coefficients.
        learner: Network W1.
        train: Images [N, ...] and labels [N].
        valid: Images [M, ...] and labels [M].

    Returns:
        Weights a_i, [N].
    """
    if validator.keyed_by == "slot":
        valid = tuple(part[: len(validator.coefficients)] for part in valid)  # type: ignore[assignment]
    u = mistakes(_evaluate(learner, valid[0]), valid[1])
    with preserved_modes([validator]):
        weights: Tensor = validator.eval()(_indexed(train), _indexed(valid), u)
    return weights


@torch.no_grad()
def _evaluate(network: nn.Module, x: Tensor) -> Tensor:
    with preserved_modes([network]):
        output: Tensor = network.eval()(x)
    return output


def _indexed(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, labels = part
    return x, labels, torch.arange(len(x), device=x.device)
