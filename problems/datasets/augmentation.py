"""Augmentation of whole batches where they lie, without a loop over images.

Every part is called as `part(x, generator)` and returns new images; x itself is never changed. The
draws come from a generator of the CPU in double precision or whole numbers, and are then copied to
the device of the images (a few hundred bytes a part, without waiting), so that the same seed gives
the same images on every device.

Crops and flips move pixels and a normalization changes each by itself, so their order does not
matter to the result if the crop reflects. They come first because bytes are a quarter of the size
of floats. A cutout comes last: it fills with 0, which is the mean colour after normalization only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mlo.errors import ConfigurationError, DataError, listed

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""From inputs [n, ...] and a generator of the CPU to the inputs that the network sees, [n, ...].

It must be a function of the two: what else it remembered would not be saved with a run.
"""


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x - mean_c) / std_c for every channel c, in float32; bytes are divided by 255 before.

    Args:
        mean: One number a channel, on the scale from 0 to 1 where the images are bytes.
        std: One positive number a channel.

    Raises:
        ConfigurationError: If the two differ in length, or a deviation is not positive.
        DataError: When called, if images have another number of channels or are neither bytes
            (uint8) nor floating-point.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ConfigurationError(
                "mean, std: expected a mean and a positive deviation for each channel, found "
                f"{self.mean} and {self.std}. Measure both on the training images."
            )

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalize images [n, C, ...]; nothing is drawn."""
        if x.ndim < 2 or x.shape[1] != len(self.mean):
            raise DataError(
                f"x: expected images [n, {len(self.mean)}, ...], one channel for each mean of the "
                f"normalization, found shape {list(x.shape)}. Take the constants of these data."
            )
        check_pixels(x)
        # (x / 255 - mean) / std = (x - 255 mean) / (255 std), which takes one pass less.
        unit = 255 if x.dtype == torch.uint8 else 1
        constants = torch.tensor([self.mean, self.std], dtype=torch.float64, device="cpu")
        shaped = (unit * constants).float().view(2, -1, *[1] * (x.ndim - 2))
        mean, std = shaped.to(x.device, non_blocking=True)
        return ((x - mean) / std).to(torch.float32)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Enlarge each image by `padding` pixels on every side and cut a window of the old size out.

    The window of each image lies at one of the (2 padding + 1)^2 places, all equally likely.

    Args:
        padding: Pixels p on every side, at least 1.
        mode: What the margin shows: "reflect" the image mirrored at its border pixels, which are
            not repeated; "constant" zeros, which is black before a normalization.

    Raises:
        ConfigurationError: If `padding` is below 1 or `mode` is unknown; when called, if images
            to be mirrored are not larger than the margin.
        DataError: When called, if these are no images [n, C, H, W].
    """

    padding: int = 4
    mode: str = "reflect"

    def __post_init__(self) -> None:
        check_size("padding", self.padding)
        if self.mode not in ("reflect", "constant"):
            raise ConfigurationError(
                f"mode: expected 'reflect' or 'constant', found {self.mode!r}. "
                "Choose what the margin shows."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Crop images [n, C, H, W]; draws one offset down and one to the right for each."""
        n, channels, height, width = image_shape(x)
        p = self.padding
        if self.mode == "reflect" and p >= min(height, width):
            raise ConfigurationError(
                f"padding: expected at most {min(height, width) - 1} for images of {height} by "
                f"{width} pixels, which have no more to mirror, found {p}. Pad less."
            )
        offsets = torch.randint(2 * p + 1, (2, n, 1), generator=generator, device="cpu")
        down, right = offsets.to(x.device, non_blocking=True)
        rows = down + torch.arange(height, device=x.device)  # [n, H], of the enlarged image
        columns = right + torch.arange(width, device=x.device)
        if self.mode == "reflect":
            rows, columns = _mirrored(rows - p, height), _mirrored(columns - p, width)
        else:
            x = F.pad(x, (p, p, p, p))
        # Place of each pixel in its image, the same for all channels.
        places = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).view(n, 1, -1)
        pixels = x.flatten(2).gather(2, places.expand(n, channels, -1))
        return pixels.view(n, channels, height, width)


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Turn each image left to right with a probability.

    Args:
        probability: From 0 to 1.

    Raises:
        ConfigurationError: If the probability is outside its range.
        DataError: When called, if these are no images [n, C, H, W].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigurationError(
                f"probability: expected a number from 0 to 1, found {self.probability}. "
                "Write 50 % as 0.5."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Flip some of the images [n, C, H, W]; draws one number for each."""
        n, *_ = image_shape(x)
        draws = torch.rand(n, 1, 1, 1, generator=generator, dtype=torch.float64, device="cpu")
        turned = (draws < self.probability).to(x.device, non_blocking=True)
        return torch.where(turned, x.flip(3), x)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Fill a square of each image with 0; it is cut off where it leaves the image.

    The square around (i, j) covers the rows i - size // 2 to i - size // 2 + size - 1, and the
    columns alike; (i, j) is any pixel of the image, all equally likely.

    Source: T. DeVries and G. Taylor, "Improved Regularization of Convolutional Neural Networks
    with Cutout", 2017. Their code makes squares of odd size one pixel smaller; these are not.

    Args:
        size: Side of the square in pixels, at least 1.

    Raises:
        ConfigurationError: If `size` is below 1.
        DataError: When called, if these are no images [n, C, H, W].
    """

    size: int = 16

    def __post_init__(self) -> None:
        check_size("size", self.size)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Cut a square out of each of the images [n, C, H, W]; draws one pixel for each."""
        n, _, height, width = image_shape(x)
        sides = (height, width)
        centres = [torch.randint(s, (n, 1), generator=generator, device="cpu") for s in sides]
        first = (torch.stack(centres) - self.size // 2).to(x.device, non_blocking=True)
        rows, columns = (self._covered(*part) for part in zip(first, sides, strict=True))
        return x.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)

    def _covered(self, first: Tensor, side: int) -> Tensor:
        """Which rows or columns lie in the square, [n, side]."""
        place = torch.arange(side, device=first.device)
        return (place >= first) & (place < first + self.size)


@dataclasses.dataclass(frozen=True, init=False)
class Pipeline:
    """One transform after the other, all on one generator.

    Args:
        parts: Transforms; with none the inputs stay as they are.
    """

    parts: tuple[Transform, ...]

    def __init__(self, *parts: Transform) -> None:
        object.__setattr__(self, "parts", parts)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Apply all parts in their order."""
        for part in self.parts:
            x = part(x, generator)
        return x


_CIFAR = {
    "cifar10": Normalize(
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255), std=(63.0 / 255, 62.1 / 255, 66.7 / 255)
    ),
    "cifar100": Normalize(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
}


def cifar_normalization(name: str) -> Normalize:
    """The constants with which CIFAR is normalized in the literature on reweighting.

    Args:
        name: "cifar10" or "cifar100".

    Raises:
        ConfigurationError: If the name is another.
    """
    if name not in _CIFAR:
        raise ConfigurationError(
            f"name: expected one of {listed(_CIFAR)}, found {name!r}. "
            "Measure the mean and deviation of other data and pass them to Normalize."
        )
    return _CIFAR[name]


def cifar_augmentation(name: str, *, cutout: int | None = None) -> Pipeline:
    """Crop with a mirrored margin of 4, flip with probability 1/2, normalize; then cut out.

    Args:
        name: "cifar10" or "cifar100".
        cutout: Side of the square that is cut out, such as 16; `None` for none.

    Raises:
        ConfigurationError: If the name or the size is outside its range.
    """
    last = [] if cutout is None else [Cutout(cutout)]
    return Pipeline(RandomCrop(4), HorizontalFlip(0.5), cifar_normalization(name), *last)


def _mirrored(place: Tensor, side: int) -> Tensor:
    """Places outside 0 to side - 1, by less than a side, mirrored at the first and the last."""
    return (side - 1) - ((side - 1) - place.abs()).abs()


def image_shape(x: Tensor) -> tuple[int, int, int, int]:
    """The shape of images [n, C, H, W].

    Raises:
        DataError: If x has another number of dimensions.
    """
    if x.ndim != 4:
        raise DataError(
            f"x: expected images [n, C, H, W], found shape {list(x.shape)}. "
            "Give a batch of one as [1, C, H, W]."
        )
    n, channels, height, width = x.shape
    return n, channels, height, width


def check_pixels(x: Tensor) -> None:
    """Refuse pixels that are neither bytes nor floating-point.

    Raises:
        DataError: If they are not.
    """
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise DataError(
            f"x: expected bytes (uint8) or floating-point numbers, found {x.dtype}. "
            "What is to be divided by 255 cannot be told from other whole numbers."
        )


def check_size(name: str, size: int) -> None:
    """Refuse a size below 1 pixel.

    Raises:
        ConfigurationError: If it is.
    """
    if size < 1:
        raise ConfigurationError(
            f"{name}: expected at least 1 pixel, found {size}. Leave the part out instead."
        )
