"""The candidate operations of architecture search (Liu et al., DARTS, 2019, Section 3.1).

Every operation maps [n, C, H, W] to [n, C, ⌈H/s⌉, ⌈W/s⌉] at stride s, and [n, C, L] to
[n, C, ⌈L/s⌉] in one dimension, where a kernel has the first of the two numbers in its name.
Convolutions are in the order ReLU, convolution, batch normalization. Nothing works in place, so
second derivatives exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlo.errors import ConfigurationError, listed, nearest
from problems.models.sizes import check_known, check_positive


@dataclasses.dataclass(frozen=True)
class Layers:
    """The layers of torch for inputs with so many dimensions."""

    convolution: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    max_pool: Callable[..., nn.Module]
    avg_pool: Callable[..., nn.Module]
    adaptive_pool: Callable[..., nn.Module]


_LAYERS = {
    1: Layers(nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d),
    2: Layers(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
}


def layers_of(dimensions: int) -> Layers:
    """Return the layers for sequences (1) or images (2); ConfigurationError for anything else."""
    check_known("dimensions", dimensions, (*_LAYERS,))
    return _LAYERS[dimensions]


class ReLUConvBN(nn.Sequential):
    """ReLU, a convolution without bias, batch normalization.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: an odd number; the padding keeps the size at stride 1.
        stride: of the convolution.
        affine: whether the normalization has a learned scale and shift.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        affine: bool = True,
        dimensions: int = 2,
    ) -> None:
        layers = layers_of(dimensions)
        super().__init__(
            nn.ReLU(),
            layers.convolution(
                inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
            ),
            layers.norm(outputs, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Half the size in every dimension, by two 1 x 1 convolutions of stride 2.

    After a ReLU, one convolution sees the even places and the other the odd ones (on the diagonal,
    for images); each gives half of the channels, which are normalized together. An odd size is
    padded by one row of zeros at its end, so that both halves have ⌈H/2⌉ places.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; of an odd number the second half has one more.
        affine: whether the normalization has a learned scale and shift.
        dimensions: 2 for images, 1 for sequences.
    """

    def __init__(
        self, inputs: int, outputs: int, *, affine: bool = True, dimensions: int = 2
    ) -> None:
        super().__init__()
        if outputs < 2:
            raise ConfigurationError(
                f"FactorizedReduce: expected at least 2 output channels, found {outputs}. "
                "Each of its two convolutions gives half of them; give more channels."
            )
        layers = layers_of(dimensions)
        half = outputs // 2
        self.from_second: tuple[Any, ...] = (..., *(slice(1, None),) * dimensions)
        self.even = layers.convolution(inputs, half, 1, stride=2, bias=False)
        self.odd = layers.convolution(inputs, outputs - half, 1, stride=2, bias=False)
        self.norm = layers.norm(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, H, ...] to [n, outputs, ⌈H/2⌉, ...]."""
        x = F.relu(x)
        odd = [size % 2 for size in x.shape[2:]]
        if any(odd):
            x = F.pad(x, [p for each in reversed(odd) for p in (0, each)])
        shifted = x[self.from_second]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))


class Zero(nn.Module):
    """Zeros of the shape that an operation with this stride gives."""

    def __init__(self, stride: int, dimensions: int) -> None:
        super().__init__()
        self.places: tuple[Any, ...] = (..., *(slice(None, None, stride),) * dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, ...] to zeros [n, C, ⌈H/s⌉, ...]."""
        return torch.zeros_like(x[self.places])


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an operation stands: what its builder needs to know."""

    channels: int
    stride: int
    affine: bool
    dimensions: int

    @property
    def layers(self) -> Layers:
        return layers_of(self.dimensions)

    def norm(self) -> nn.Module:
        return self.layers.norm(self.channels, affine=self.affine)

    def convolution(self, kernel, *, stride=1, **options) -> nn.Module:
        return self.layers.convolution(
            self.channels, self.channels, kernel, stride=stride, bias=False, **options
        )

    def depthwise(self, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
        """ReLU, one convolution a channel, a 1 x 1 one over the channels, normalization."""
        each = self.convolution(
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=self.channels,
        )
        return [nn.ReLU(), each, self.convolution(1), self.norm()]


def _skip(at: _Place) -> nn.Module:
    if at.stride == 1:
        return nn.Identity()
    return FactorizedReduce(at.channels, at.channels, affine=at.affine, dimensions=at.dimensions)


def _max_pool(at: _Place) -> nn.Module:
    return at.layers.max_pool(3, stride=at.stride, padding=1)


def _avg_pool(at: _Place) -> nn.Module:
    return at.layers.avg_pool(3, stride=at.stride, padding=1, count_include_pad=False)


def _conv(kernel: int) -> Callable[[_Place], nn.Module]:
    return lambda at: ReLUConvBN(
        at.channels, at.channels, kernel, at.stride, affine=at.affine, dimensions=at.dimensions
    )


def _sep_conv(kernel: int) -> Callable[[_Place], nn.Module]:
    return lambda at: nn.Sequential(*at.depthwise(kernel, stride=at.stride), *at.depthwise(kernel))


def _dil_conv(kernel: int) -> Callable[[_Place], nn.Module]:
    return lambda at: nn.Sequential(*at.depthwise(kernel, stride=at.stride, dilation=2))


def _conv_7x1_1x7(at: _Place) -> nn.Module:
    """A row of seven, then a column of seven; in one dimension a convolution of seven."""
    if at.dimensions == 1:
        return _conv(7)(at)
    return nn.Sequential(
        nn.ReLU(),
        at.convolution((1, 7), stride=(1, at.stride), padding=(0, 3)),
        at.convolution((7, 1), stride=(at.stride, 1), padding=(3, 0)),
        at.norm(),
    )


OPERATIONS: Mapping[str, Callable[[_Place], nn.Module]] = {
    "none": lambda at: Zero(at.stride, at.dimensions),
    "skip_connect": _skip,
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "sep_conv_7x7": _sep_conv(7),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
    "conv_1x1": _conv(1),
    "conv_3x3": _conv(3),
    "conv_5x5": _conv(5),
    "conv_7x1_1x7": _conv_7x1_1x7,
}
"""All operations by name; `make_operation` builds one."""

POOLING = ("max_pool_3x3", "avg_pool_3x3")
"""The operations that a search network normalizes behind; a discrete network does not."""


def check_operation(name: str, where: str = "operation") -> None:
    """Refuse a name that is no operation, by a ConfigurationError with the nearest name."""
    if name not in OPERATIONS:
        raise ConfigurationError(f"{where}: {unknown_operation(name)}")


def unknown_operation(name: str) -> str:
    """Say that there is no such operation, which there are, and which is nearest."""
    return (
        f"expected an operation among {listed(OPERATIONS)}, found {name!r}"
        f"{nearest(str(name), OPERATIONS)}. Name one of them."
    )


def make_operation(
    name: str, channels: int, stride: int, *, affine: bool, dimensions: int = 2
) -> nn.Module:
    """Build an operation.

    "none" gives zeros, "skip_connect" the input itself, or `FactorizedReduce` at stride 2. Pooling
    is over 3 places a side; an average is over those inside the input. "sep_conv" is a depthwise
    separable convolution applied twice, the first with the stride. "dil_conv" is one of dilation 2.

    Args:
        name: one of `OPERATIONS`.
        channels: of the input and of the output.
        stride: 1, or 2 for half the size.
        affine: whether batch normalization has a learned scale and shift.
        dimensions: 2 for images, 1 for sequences.

    Returns:
        A module from [n, C, H, ...] to [n, C, ⌈H/stride⌉, ...].

    Raises:
        ConfigurationError: If there is no such operation, or a number is none to build it with.
    """
    check_operation(name)
    check_positive(channels=channels)
    check_known("stride", stride, (1, 2))
    check_known("dimensions", dimensions, (*_LAYERS,))
    return OPERATIONS[name](_Place(channels, stride, affine, dimensions))
