"""Small convolutional networks for small images, made of standard modules."""

from __future__ import annotations

from torch import nn

from problems.models.sizes import check_classes, check_positive

# The last feature map is averaged to this side, so images of any size give as many features.
_GRID = 4

SMALLEST = 8
"""Pixels that images must have on each side."""


def conv_encoder(
    *, channels: int = 1, width: int = 16, features: int = 64, batch_norm: bool = False
) -> nn.Sequential:
    """Build a feature encoder e: two 3 x 3 convolutions, one pooling, one linear layer.

    The features are the output of a ReLU, hence non-negative.

    Args:
        channels: Channels C of the images.
        width: Channels after the first convolution; the second has twice as many.
        features: Length F of the feature vector.
        batch_norm: Normalize each convolution over the batch.

    Returns:
        A module from [n, C, H, W], with H and W at least 8, to [n, F].

    Raises:
        ConfigurationError: If a size is not positive.
    """
    check_positive(channels=channels, width=width, features=features)
    return nn.Sequential(
        *_convolution(channels, width, batch_norm),
        nn.MaxPool2d(2),
        *_convolution(width, 2 * width, batch_norm),
        nn.AdaptiveAvgPool2d(_GRID),
        nn.Flatten(),
        nn.Linear(2 * width * _GRID**2, features),
        nn.ReLU(),
    )


def conv_classifier(
    classes: int,
    *,
    channels: int = 1,
    width: int = 16,
    features: int = 64,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Build a classifier: `conv_encoder` and a linear layer on its features.

    Args:
        classes: Number of classes K.
        channels: Channels C of the images.
        width: Channels after the first convolution.
        features: Length F of the last hidden layer.
        batch_norm: Normalize each convolution over the batch.

    Returns:
        A module from images [n, C, H, W] to logits [n, K].

    Raises:
        ConfigurationError: If there are fewer than two classes.
    """
    check_classes(classes)
    encoder = conv_encoder(channels=channels, width=width, features=features, batch_norm=batch_norm)
    return encoder.append(nn.Linear(features, classes))


def _convolution(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    # Batch normalization subtracts the mean, so a bias before it would have no effect.
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)
    return [convolution, *([nn.BatchNorm2d(outputs)] if batch_norm else []), nn.ReLU()]
