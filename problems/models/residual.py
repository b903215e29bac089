"""The two blocks of residual networks (He et al., Deep Residual Learning, 2016, Figure 5).

    y = ReLU( F(x) + s(x) )        F: convolutions with batch normalization, s: the shortcut

Parts are named as in torchvision. No ReLU and no sum works in place, so second derivatives exist.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, the first with the stride.

    Args:
        inputs: channels of x.
        outputs: channels of y.
        stride: of the first convolution.
        shortcut: s, whose result has the shape of F(x).
    """

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1 x 1 convolution to a quarter of the channels, a 3 x 3 one, and a 1 x 1 one back.

    The stride is that of the 3 x 3 convolution, as in torchvision, whose weights are of such
    networks; He et al. have it in the first convolution.

    Args:
        inputs: channels of x.
        outputs: channels of y, a multiple of 4.
        stride: of the 3 x 3 convolution.
        shortcut: s, whose result has the shape of F(x).
    """

    expansion = 4

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        narrow = outputs // self.expansion
        self.conv1 = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return the shortcut of option B: a 1 x 1 convolution with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


def global_average() -> OrderedDict[str, nn.Module]:
    """Return the end of an encoder: the mean over all places, [n, F, H, W] to [n, F]."""
    return OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
