"""The forward passes once more, from the weights by their names and formulas, without modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from problems.models import resnet as resnets
from problems.models import vgg as vggs

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@contextlib.contextmanager
def narrow() -> Iterator[None]:
    """An eighth of the channels in ResNet and VGG, for tests of what does not depend on them."""
    with (
        mock.patch.multiple(resnets, _STEM_WIDTH=8, _LAST=64),
        mock.patch.object(vggs, "_GROUPS", ((8, 2), (16, 2), (32, 4), (64, 4), (64, 4))),
        mock.patch.object(vggs, "_HIDDEN", 96),
    ):
        yield


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Networks of any size, whose weights have shapes and no numbers, and so none to draw."""
    with (
        mock.patch.object(Tensor, "normal_", lambda part, *_, **__: part),
        mock.patch.object(Tensor, "uniform_", lambda part, *_, **__: part),
        torch.device("meta"),
    ):
        yield


def scrambled(network: nn.Module, seed: int = 7) -> nn.Module:
    """Scales, shifts and running statistics that are not those of the start."""
    draw = torch.Generator().manual_seed(seed)
    for name, part in network.state_dict().items():
        if part.ndim != 1 or not part.is_floating_point():
            continue
        with torch.no_grad():
            if name.endswith("running_var") or name.endswith("weight"):
                part.copy_(0.6 + 0.8 * torch.rand(part.shape, generator=draw, dtype=part.dtype))
            else:
                part.copy_(0.2 * torch.randn(part.shape, generator=draw, dtype=part.dtype))
    return network


class Weights:
    """The layers of a network, by the names of its weights."""

    def __init__(self, network: nn.Module) -> None:
        self.state: Mapping[str, Tensor] = {
            name: part.clone() for name, part in network.state_dict().items()
        }
        self.training = network.training
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name)
        return self.state[name]

    def has(self, name: str) -> bool:
        return name in self.state

    def conv(self, name: str, x: Tensor, stride: int = 1, bias: bool = False) -> Tensor:
        weight = self[f"{name}.weight"]
        shift = self[f"{name}.bias"] if bias else None
        return F.conv2d(x, weight, shift, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        scale = self[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self[f"{name}.bias"][
            :, None, None
        ]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def all_used(self) -> bool:
        counters = {name for name in self.state if name.endswith("num_batches_tracked")}
        return self.used | counters == set(self.state)


def resnet(w: Weights, x: Tensor, depth: int, stem: str = "imagenet") -> Tensor:
    large = stem == "imagenet"
    x = w.norm("bn1", w.conv("conv1", x, 2 if large else 1)).clamp(min=0)
    if large:
        x = F.max_pool2d(x, 3, 2, 1)
    for layer, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(blocks):
            stride = 2 if layer > 1 and block == 0 else 1
            x = residual(w, f"layer{layer}.{block}", x, stride, deep=depth >= 50)
    return x.mean((2, 3))


def residual(w: Weights, name: str, x: Tensor, stride: int, *, deep: bool) -> Tensor:
    strides = (1, stride, 1) if deep else (stride, 1)
    y = x
    for index, each in enumerate(strides, 1):
        y = w.norm(f"{name}.bn{index}", w.conv(f"{name}.conv{index}", y, each))
        if index < len(strides):
            y = y.clamp(min=0)
    short = x
    if w.has(f"{name}.downsample.0.weight"):
        short = w.norm(f"{name}.downsample.1", w.conv(f"{name}.downsample.0", x, stride))
    elif y.shape != x.shape:
        short = torch.zeros_like(y)
        quarter = y.shape[1] // 4
        short[:, quarter : quarter + x.shape[1]] = x[:, :, ::2, ::2]
    return (y + short).clamp(min=0)


def cifar_resnet(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = w.norm("bn1", w.conv("conv1", x)).clamp(min=0)
    for layer in (1, 2, 3):
        for block in range((depth - 2) // 6):
            stride = 2 if layer > 1 and block == 0 else 1
            x = residual(w, f"layer{layer}.{block}", x, stride, deep=False)
    return w.linear("linear", x.mean((2, 3)))


def wide_resnet(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = w.conv("conv1", x)
    for group in (1, 2, 3):
        for block in range((depth - 4) // 6):
            name, stride = f"group{group}.{block}", 2 if group > 1 and block == 0 else 1
            a = w.norm(f"{name}.bn1", x).clamp(min=0)
            y = w.norm(f"{name}.bn2", w.conv(f"{name}.conv1", a, stride)).clamp(min=0)
            y = w.conv(f"{name}.conv2", y)
            same = y.shape == x.shape
            x = y + (x if same else w.conv(f"{name}.shortcut", a, stride))
    x = F.avg_pool2d(w.norm("bn", x).clamp(min=0), 8)
    return w.linear("fc", x.reshape(len(x), -1))


def vgg(w: Weights, x: Tensor, grid: int) -> Tensor:
    index = 0
    for convolutions in (2, 2, 4, 4, 4):
        for _ in range(convolutions):
            x = w.conv(f"features.{index}", x, bias=True)
            x = w.norm(f"features.{index + 1}", x).clamp(min=0)
            index += 3
        x, index = F.max_pool2d(x, 2), index + 1
    x = F.adaptive_avg_pool2d(x, grid).reshape(len(x), -1)
    for layer in (0, 3):
        x = w.linear(f"classifier.{layer}", x).clamp(min=0)
    return w.linear("classifier.6", x)
