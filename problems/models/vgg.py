"""VGG19 with batch normalization (Simonyan and Zisserman, 2015, configuration E)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from problems.models.sizes import check_classes, check_dropout, check_positive

# Channels and number of convolutions before each of the five poolings.
_GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
_HIDDEN = 4096

SMALLEST_VGG = 32
"""Pixels that images must have on each side, which five poolings halve."""


def vgg19_bn(
    classes: int, *, grid: int = 7, dropout: float = 0.5, channels: int = 3
) -> nn.Sequential:
    """Build VGG19-BN: sixteen convolutions with batch normalization and three linear layers.

    Layers and their names are those of torchvision (features.*, classifier.0, .3 and .6), and so is
    the start: convolutions at N(0, 2 / fan-out), linear layers at N(0, 0.01²), biases at 0. There
    are 143,678,248 parameters at grid 7 and K = 1000, and 25088 x 4096 of them in the first linear
    layer.

    Args:
        classes: Number of classes K.
        grid: the last feature map is averaged to grid x grid places. 7 is what images of 224 x 224
            pixels give and what ImageNet weights need. Images of 64 x 64 pixels give 2 x 2 places,
            of 32 x 32 pixels one: a larger grid only repeats these, so choose 2 and 1.
        dropout: probability of dropout after each hidden linear layer.
        channels: Channels C of the images.

    Returns:
        A module from images [n, C, H, W], with H and W at least 32, to logits [n, K].

    Raises:
        ConfigurationError: If dropout is not in [0, 1), or a size is too small.
    """
    check_classes(classes)
    check_positive(grid=grid, channels=channels)
    check_dropout(dropout)
    network = nn.Sequential(
        OrderedDict(
            features=_features(channels),
            avgpool=nn.AdaptiveAvgPool2d(grid),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(_GROUPS[-1][0] * grid**2, _HIDDEN),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(_HIDDEN, _HIDDEN),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(_HIDDEN, classes),
            ),
        )
    )
    _start(network)
    return network


def _features(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = channels
    for outputs, convolutions in _GROUPS:
        for _ in range(convolutions):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _start(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
    for name, parameter in network.named_parameters():
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
