"""A convolutional network for short sequences such as those of MNIST-1D, of standard modules."""

from __future__ import annotations

from torch import nn

from problems.models.sizes import check_classes, check_positive

# The last feature map is averaged to this length: at the length 40 of MNIST-1D it has it already.
_PLACES = 5

SHORTEST = 35
"""Numbers that sequences must have, for that the last feature map has five places."""


def sequence_encoder(
    *, channels: int = 1, width: int = 25, features: int | None = None, batch_norm: bool = False
) -> nn.Sequential:
    """Build a feature encoder e: three convolutions of kernel 5, 3, 3 and stride 2, each with ReLU.

    With the defaults this is ConvBase, the convolutional network that Greydanus (Scaling down deep
    learning, 2020; notebooks/models.py of the repository mnist1d) compares on MNIST-1D, without its
    linear layer. The features are the output of a ReLU, hence non-negative.

    Args:
        channels: Channels C of the sequences.
        width: Channels of each convolution.
        features: Length F of the feature vector, made by a linear layer with ReLU. None: the last
            feature map itself, F = 5 width.
        batch_norm: Normalize each convolution over the batch.

    Returns:
        A module from [n, C, L], with L at least 35, to [n, F].

    Raises:
        ConfigurationError: If a size is not positive.
    """
    check_positive(channels=channels, width=width)
    layers = [
        *_convolution(channels, width, 5, batch_norm),
        *_convolution(width, width, 3, batch_norm),
        *_convolution(width, width, 3, batch_norm),
        nn.AdaptiveAvgPool1d(_PLACES),
        nn.Flatten(),
    ]
    if features is not None:
        check_positive(features=features)
        layers += [nn.Linear(_PLACES * width, features), nn.ReLU()]
    return nn.Sequential(*layers)


def sequence_classifier(
    classes: int,
    *,
    channels: int = 1,
    width: int = 25,
    features: int | None = None,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Build a classifier: `sequence_encoder` and a linear layer on its features.

    The defaults give ConvBase, of 5,210 parameters for one channel and ten classes.

    Args:
        classes: Number of classes K.
        channels: Channels C of the sequences.
        width: Channels of each convolution.
        features: Length F of a hidden layer before the last, or None for no such layer.
        batch_norm: Normalize each convolution over the batch.

    Returns:
        A module from sequences [n, C, L] to logits [n, K].

    Raises:
        ConfigurationError: If there are fewer than two classes, or a size is not positive.
    """
    check_classes(classes)
    encoder = sequence_encoder(
        channels=channels, width=width, features=features, batch_norm=batch_norm
    )
    return encoder.append(nn.Linear(features or _PLACES * width, classes))


def _convolution(inputs: int, outputs: int, kernel: int, batch_norm: bool) -> list[nn.Module]:
    # Batch normalization subtracts the mean, so a bias before it would have no effect.
    convolution = nn.Conv1d(inputs, outputs, kernel, stride=2, padding=1, bias=not batch_norm)
    return [convolution, *([nn.BatchNorm1d(outputs)] if batch_norm else []), nn.ReLU()]
