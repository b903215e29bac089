"""Wide residual networks (Zagoruyko and Komodakis, Wide Residual Networks, 2016, Table 1)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.residual import global_average
from problems.models.sizes import check_classes, check_dropout, check_positive

_STEM = 16


def wide_resnet(
    depth: int = 28, widen: int = 10, *, classes: int, dropout: float = 0.0, channels: int = 3
) -> nn.Sequential:
    """Build WRN-d-k of d = 6n + 4 layers: a convolution, three groups of n blocks, a linear layer.

    The groups have 16k, 32k and 64k channels at strides 1, 2 and 2: the last feature map of images
    of 32 x 32 pixels has 8 x 8 places, over which the mean is taken. Convolutions start at
    N(0, 2 / fan-out), the bias of the linear layer at 0 (models/utils.lua of the authors'
    repository wide-residual-networks; Meta-Weight-Net does the same). WRN-28-10 has 36,479,194
    parameters for ten classes, 36,536,884 for a hundred.

    Args:
        depth: d.
        widen: k.
        classes: Number of classes K.
        dropout: probability of dropout between the two convolutions of each block.
        channels: Channels C of the images.

    Returns:
        A module from images [n, C, H, W] to logits [n, K].

    Raises:
        ConfigurationError: If the depth is not 6n + 4, dropout is not in [0, 1), or a size is too
            small.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ConfigurationError(
            f"depth: expected 6n + 4 with n at least 1, found {depth}. Choose 16, 28 or 40."
        )
    check_classes(classes)
    check_positive(widen=widen, channels=channels)
    check_dropout(dropout)
    first, middle, last = 16 * widen, 32 * widen, 64 * widen
    head = nn.Linear(last, classes)
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, _STEM, 3, padding=1, bias=False),
            group1=_group(blocks, _STEM, first, 1, dropout),
            group2=_group(blocks, first, middle, 2, dropout),
            group3=_group(blocks, middle, last, 2, dropout),
            bn=nn.BatchNorm2d(last),
            relu=nn.ReLU(),
            **global_average(),
            fc=head,
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    nn.init.zeros_(head.bias)
    return network


class WideBlock(nn.Module):
    """Normalization and ReLU before each of two 3 x 3 convolutions.

    With a = ReLU(BN(x)), the block is F(a) + x where inputs and outputs are as many, and F(a) + P a
    with a 1 x 1 convolution P where they are not.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the first convolution and of P.
        dropout: probability of dropout between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of the block."""
        a = self.relu(self.bn1(x))
        y = self.relu(self.bn2(self.conv1(a)))
        y = self.conv2(self.dropout(y))
        return y + (x if self.shortcut is None else self.shortcut(a))


def _group(blocks: int, inputs: int, outputs: int, stride: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        WideBlock(inputs, outputs, stride, dropout),
        *(WideBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1)),
    )
