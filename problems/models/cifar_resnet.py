"""Residual networks for images of 32 x 32 pixels (He et al., 2016, Section 4.2)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.residual import BasicBlock, global_average, projection
from problems.models.sizes import check_classes, check_known, check_positive

_WIDTHS = (16, 32, 64)


def cifar_resnet(
    depth: int, classes: int, *, shortcut: str = "A", channels: int = 3
) -> nn.Sequential:
    """Build ResNet-d of d = 6n + 2 layers: a convolution, three groups of n blocks, a linear layer.

    The groups have 16, 32 and 64 channels at strides 1, 2 and 2. Convolutions and the linear layer
    start at N(0, 2 / fan-in), as in the published codes of Meta-Weight-Net (resnet.py of the
    repository meta-weight-net) and of what was derived from it. ResNet-32 has 464,154 parameters
    for ten classes, 470,004 for a hundred.

    Args:
        depth: d, such as 20, 32, 44, 56 or 110.
        classes: Number of classes K.
        shortcut: where the shape changes, "A" takes every second place and adds channels of zeros,
            half of them before and half behind, which has no parameters; "B" projects by a 1 x 1
            convolution with batch normalization.
        channels: Channels C of the images.

    Returns:
        A module from images [n, C, H, W] to logits [n, K].

    Raises:
        ConfigurationError: If the depth is not 6n + 2, the shortcut is unknown, or a size is too
            small.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ConfigurationError(
            f"depth: expected 6n + 2 with n at least 1, found {depth}. Choose 20, 32, 44 or 56."
        )
    check_classes(classes)
    check_known("shortcut", shortcut, ("A", "B"))
    check_positive(channels=channels)
    first, middle, last = _WIDTHS
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, first, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(first),
            relu=nn.ReLU(),
            layer1=_group(blocks, first, first, 1, shortcut),
            layer2=_group(blocks, first, middle, 2, shortcut),
            layer3=_group(blocks, middle, last, 2, shortcut),
            **global_average(),
            linear=nn.Linear(last, classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network


class ZeroPadded(nn.Module):
    """The shortcut of option A: every second row and column, between channels of zeros.

    Args:
        more: channels of zeros to add, an even number.
    """

    def __init__(self, more: int) -> None:
        super().__init__()
        self.each = more // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, W] to [n, C + more, ⌈H/2⌉, ⌈W/2⌉]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.each, self.each))


def _group(blocks: int, inputs: int, outputs: int, stride: int, shortcut: str) -> nn.Sequential:
    first: nn.Module = nn.Identity()
    if stride > 1:
        padded = shortcut == "A"
        first = ZeroPadded(outputs - inputs) if padded else projection(inputs, outputs, stride)
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, first),
        *(BasicBlock(outputs, outputs, 1, nn.Identity()) for _ in range(blocks - 1)),
    )
