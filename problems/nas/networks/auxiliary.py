"""The auxiliary head: a second classifier part of the way up, which helps training only."""

from __future__ import annotations

from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.nas.operations import layers_of

WINDOW = 5
"""Places a side that the head averages over."""


class AuxiliaryHead(nn.Module):
    """ReLU, mean over 5 places a side, 1 x 1 and 2 x 2 convolutions, a linear layer.

    The convolutions have 128 and 768 channels, without bias, and are followed by batch
    normalization and ReLU. The mean leaves two places a side of maps of `smallest` (at CIFAR's
    8 x 8 with stride 3, at ImageNet's 7 x 7 with stride 2), so that the last convolution leaves
    one. Larger maps leave more, and the linear layer is given their mean.

    Source: the code of H. Liu et al., DARTS, ICLR 2019 (`AuxiliaryHeadCIFAR` and
    `AuxiliaryHeadImageNet`, which takes maps of 7 x 7).

    Args:
        channels: of the map.
        classes: number of classes K.
        stride: of the mean; 3 for CIFAR, 2 for ImageNet.
        last_norm: whether the second convolution is normalized; not in the one for ImageNet.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        stride: int = 3,
        last_norm: bool = True,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        layers = layers_of(dimensions)
        self.smallest = smallest_map(stride)
        self.features = nn.Sequential(
            nn.ReLU(),
            layers.avg_pool(WINDOW, stride=stride),
            layers.convolution(channels, 128, 1, bias=False),
            layers.norm(128),
            nn.ReLU(),
            layers.convolution(128, 768, 2, bias=False),
            *([layers.norm(768)] if last_norm else []),
            nn.ReLU(),
        )
        self.linear = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, H, ...] to logits [n, K].

        Raises:
            ConfigurationError: The map is smaller than `smallest`.
        """
        if min(x.shape[2:]) < self.smallest:
            raise ConfigurationError(
                f"auxiliary: expected a map of at least {self.smallest} places a side for the "
                f"auxiliary head, found {tuple(x.shape[2:])}. Turn it off by auxiliary=False, or "
                "give larger inputs."
            )
        return self.linear(self.features(x).flatten(2).mean(2))


def smallest_map(stride: int) -> int:
    """Places a side that leave two after the mean: the window, and one stride more."""
    return WINDOW + stride
