"""ResNet-18, 34, 50 and 101 (He et al., 2016, Table 1), into which ImageNet weights load."""

from __future__ import annotations

import os
from collections import OrderedDict

from torch import nn

from mlo.weights import load_weights
from problems.models.residual import BasicBlock, Bottleneck, global_average, projection
from problems.models.sizes import check_classes, check_known, check_positive

_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
_STEMS = ("imagenet", "cifar")
_STEM_WIDTH = 64
_LAST = 512

# A classifier's last layer is no part of an encoder. Files written before torch 0.4.1, of which
# ImageNet weights are, have no counters; they matter only to momentum=None, which is not used here.
_OPTIONAL = ("fc.weight", "fc.bias", "*.num_batches_tracked")


def resnet_encoder(depth: int, *, stem: str = "imagenet", channels: int = 3) -> nn.Sequential:
    """Build a feature encoder e: ResNet-d without its last layer, up to the global average.

    Layers and their names are those of torchvision (conv1, bn1, layer1 to layer4), and so is the
    start: convolutions at N(0, 2 / fan-out). The features are means of outputs of a ReLU, hence
    non-negative. There are 11,176,512, 21,284,672, 23,508,032 and 42,500,160 parameters at depth
    18, 34, 50 and 101.

    Args:
        depth: 18, 34, 50 or 101.
        stem: "imagenet" begins with a 7 x 7 convolution of stride 2 and a pooling of stride 2, so
            the last feature map of images of 32 x 32 pixels has one place only. "cifar" begins with
            a 3 x 3 convolution of stride 1 and no pooling, which leaves 4 x 4 places and costs 16
            times as much; ImageNet weights do not fit it.
        channels: Channels C of the images.

    Returns:
        A module from images [n, C, H, W] to features [n, F]; F is 512 at depth 18 and 34, 2048 at
        depth 50 and 101.

    Raises:
        ConfigurationError: If depth or stem are unknown, or channels is not positive.
    """
    check_known("depth", depth, _BLOCKS)
    check_known("stem", stem, _STEMS)
    check_positive(channels=channels)
    block, numbers = _BLOCKS[depth]
    layers = _stem(stem, channels)
    inputs = _STEM_WIDTH
    for index, number in enumerate(numbers):
        outputs = (_LAST >> (3 - index)) * block.expansion
        layers[f"layer{index + 1}"] = _layer(block, number, inputs, outputs, 2 if index else 1)
        inputs = outputs
    encoder = nn.Sequential(layers | global_average())
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return encoder


def resnet_classifier(
    depth: int, classes: int, *, stem: str = "imagenet", channels: int = 3
) -> nn.Sequential:
    """Build a classifier: `resnet_encoder` and a linear layer on its features, named fc.

    Args:
        depth: 18, 34, 50 or 101.
        classes: Number of classes K.
        stem: "imagenet", or "cifar" for small images.
        channels: Channels C of the images.

    Returns:
        A module from images [n, C, H, W] to logits [n, K].

    Raises:
        ConfigurationError: As `resnet_encoder`, and if there are fewer than two classes.
    """
    check_classes(classes)
    network = resnet_encoder(depth, stem=stem, channels=channels)
    network.add_module("fc", nn.Linear(_LAST * _BLOCKS[depth][0].expansion, classes))
    return network


def load_encoder_weights(encoder: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load weights of an encoder, or of a classifier without its last layer, into an encoder.

    The file is a local one of ``torch.save(network.state_dict(), path)``, as the ImageNet weights
    of torchvision are, and no code in it is executed; see `mlo.load_weights`. A classifier's
    fc.weight and fc.bias are left out. Counters of batches (num_batches_tracked), which old files
    do not have, may be absent. All else must fit.

    Args:
        encoder: what `resnet_encoder` has built.
        path: the file.

    Raises:
        DataError: the file is absent, damaged, asks for code, or does not fit the encoder, which
            is then as it was.
    """
    load_weights(encoder, path, optional=_OPTIONAL)


def _stem(stem: str, channels: int) -> OrderedDict[str, nn.Module]:
    large = stem == "imagenet"
    kernel, stride = (7, 2) if large else (3, 1)
    return OrderedDict(
        conv1=nn.Conv2d(channels, _STEM_WIDTH, kernel, stride, kernel // 2, bias=False),
        bn1=nn.BatchNorm2d(_STEM_WIDTH),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1) if large else nn.Identity(),
    )


def _layer(
    block: type[BasicBlock | Bottleneck], number: int, inputs: int, outputs: int, stride: int
) -> nn.Sequential:
    same = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if same else projection(inputs, outputs, stride)
    return nn.Sequential(
        block(inputs, outputs, stride, shortcut),
        *(block(outputs, outputs, 1, nn.Identity()) for _ in range(number - 1)),
    )
