"""Augmentation of photographs: windows of any size and shape, and changes of the colours.

The conventions are those of `augmentation`. Images are bytes or floating-point numbers from 0 to
1; bytes are divided by 255 and become float32, other numbers keep their type.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mlo.errors import ConfigurationError, DataError
from problems.datasets.augmentation import check_pixels, check_size, image_shape

TRIES = 10
"""How often a box is drawn for an image before it is given the largest one in its middle."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a box of random size, shape and place out of each image and resize it to one size.

    Of an image H by W the box has the area a H W, a uniform in `scale`, and its width over its
    height is r, log r uniform in the logarithms of `ratio`:

        w = round(sqrt(a H W r)),  h = round(sqrt(a H W / r)).

    Both are drawn again, up to 10 times, until 1 <= w <= W and 1 <= h <= H; after that the box is
    the largest one of an allowed ratio in the middle of the image. Otherwise all its places are
    equally likely. Every image takes the same number of draws, whichever of them is used.

    The box is resized by bilinear interpolation, as torch.nn.functional.interpolate does with
    align_corners=False: pixel p of s shows the place (p + 1/2) w / s - 1/2 of the box, and pixels
    outside the box are never seen. There is no smoothing beforehand, so a box that is much larger
    than `size` gives coarse images; a box that is smaller, as those of images that have this size
    already, needs none.

    Source: C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6; the tries
    and the box after them are those of torchvision.

    Args:
        size: Height and width of the images that are returned, or one number for both.
        scale: Least and largest part of the area, above 0 and at most 1.
        ratio: Least and largest width over height, above 0.

    Raises:
        ConfigurationError: If a size is below 1, or a range is empty or outside its bounds.
        DataError: When called, if these are no images [n, C, H, W], empty ones, or neither bytes
            (uint8) nor floating-point.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for side in self._sides:
            check_size("size", side)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigurationError(
                "scale: expected the least and the largest part of the area, above 0 and at most "
                f"1, found {self.scale}. Write 8 % to all of it as (0.08, 1.0)."
            )
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ConfigurationError(
                "ratio: expected the least and the largest width over height, above 0, found "
                f"{self.ratio}. Write 3 to 4 up to 4 to 3 as (0.75, 4 / 3)."
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and resize images [n, C, H, W]; draws 22 numbers for each."""
        n, _, height, width = image_shape(x)
        if not height or not width:
            raise DataError(
                f"x: expected images of at least one pixel, found shape {list(x.shape)}. "
                "There is nothing to cut a box out of."
            )
        shown = _shown(x)
        boxes = self._boxes(n, height, width, generator)
        top, left, h, w = boxes.to(x.device, non_blocking=True)
        rows, columns = self._sides
        return _resized(_resized(shown, 2, top, h, rows), 3, left, w, columns)

    @property
    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def _boxes(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Top, left, height and width of a box for each image, [4, n]."""
        tries = _uniform(2, TRIES, n, generator=generator)
        places = _uniform(2, n, generator=generator)
        area = height * width * _between(*self.scale, tries[0])
        ratio = _between(math.log(self.ratio[0]), math.log(self.ratio[1]), tries[1]).exp()
        drawn = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()
        limit = torch.tensor([[height], [width]], device="cpu")
        fits = ((drawn >= 1) & (drawn <= limit[..., None])).all(0)  # [tries, n]
        # The first of the largest: of a try that fits, if one does.
        first = fits.byte().argmax(0).expand(2, 1, n)
        size = torch.where(fits.any(0), drawn.gather(1, first)[:, 0], self._middle(height, width))
        room = limit - size
        corner = torch.where(fits.any(0), (places * (room + 1)).long(), room // 2)
        return torch.cat([corner, size])

    def _middle(self, height: int, width: int) -> Tensor:
        """Height and width of the largest box with an allowed ratio, [2, 1]."""
        narrow, wide = self.ratio
        h, w = min(height, width / narrow), min(width, height * wide)
        return torch.tensor([[max(1, round(h))], [max(1, round(w))]], device="cpu")


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue of each image by random amounts.

    With f uniform in [max(0, 1 - s), 1 + s] for the strength s of each part, x an image, g its
    grey image 0.299 R + 0.587 G + 0.114 B, and every result cut to the range from 0 to 1:

        brightness  f x
        contrast    f x + (1 - f) mean(g)
        saturation  f x + (1 - f) g
        hue         H + d mod 1 in the colours (H, S, V), d uniform in [-s, s]

    Each image has its own amounts and its own order of the four, all 24 orders equally likely, as
    where images are prepared one by one. Every part takes its draws, also one of strength 0, which
    changes nothing.

    Source: A. G. Howard, "Some Improvements on Deep Convolutional Neural Network Based Image
    Classification", 2013; the definitions are those of torchvision, without its rounding to bytes
    between the parts. The default strengths are those of DARTS for ImageNet.

    Args:
        brightness: Strength, at least 0.
        contrast: Strength, at least 0.
        saturation: Strength, at least 0.
        hue: Strength, from 0 to 0.5; 0.5 is half a turn, which reaches all hues.

    Raises:
        ConfigurationError: If a strength is outside its range.
        DataError: When called, if these are no images [n, 3, H, W], or neither bytes (uint8) nor
            floating-point.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            strength, largest = getattr(self, field.name), 0.5 if field.name == "hue" else math.inf
            if not (0 <= strength <= largest and math.isfinite(strength)):
                allowed = "from 0 to 0.5" if field.name == "hue" else "of at least 0"
                raise ConfigurationError(
                    f"{field.name}: expected a strength {allowed}, found {strength}. "
                    "Leave this part out by 0."
                )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Change the colours of images [n, 3, H, W]; draws 8 numbers for each."""
        n, channels, *_ = image_shape(x)
        if channels != 3:
            raise DataError(
                f"x: expected images [n, 3, H, W] of red, green and blue, found shape "
                f"{list(x.shape)}. Leave the part out for images without colours."
            )
        shown = _shown(x)
        result = shown.clone() if shown is x else shown
        draws = _uniform(2, len(_PARTS), n, generator=generator)
        amounts = self._amounts(draws[0]).to(result.dtype)
        for turn in draws[1].argsort(0):  # the part of each image
            for part, change in enumerate(_PARTS):
                chosen = (turn == part).nonzero()[:, 0]
                if self._strengths[part]:
                    amount = amounts[part, chosen].view(-1, 1, 1, 1)
                    index = chosen.to(x.device, non_blocking=True)
                    changed = change(result[index], amount.to(x.device, non_blocking=True))
                    result.index_copy_(0, index, changed)
        return result

    @property
    def _strengths(self) -> tuple[float, float, float, float]:
        return self.brightness, self.contrast, self.saturation, self.hue

    def _amounts(self, draws: Tensor) -> Tensor:
        """Factors of three parts and the turn of the hue for each image, [4, n]."""
        *blended, hue = self._strengths
        ranges = [*((max(0.0, 1 - s), 1 + s) for s in blended), (-hue, hue)]
        return torch.stack([_between(*r, u) for r, u in zip(ranges, draws, strict=True)])


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (factor * x).clamp(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _grey(x).mean((1, 2, 3), keepdim=True), factor)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _grey(x), factor)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue; value V = max(R, G, B) and chroma C = V - min(R, G, B) stay.

    With the hue 6 H on a circle of 6, red at 0, green at 2 and blue at 4, a channel at m shows
    V - C min(max(2 - distance, 0), 1) of its opposite, m + 3 (A. R. Smith, SIGGRAPH 1978).
    """
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = x.split(1, dim=1)
    unit = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        red == value,
        (green - blue) / unit,
        torch.where(green == value, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    opposite = torch.tensor([3, 5, 1], dtype=x.dtype, device="cpu").view(1, 3, 1, 1)
    away = (sixths + 6 * turn - opposite.to(x.device, non_blocking=True)).remainder(6)
    missing = (2 - torch.minimum(away, 6 - away)).clamp(0, 1)
    return (value - chroma * missing).clamp(0, 1)


_PARTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _hue,
)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    """The grey images, [n, 1, H, W]."""
    red, green, blue = x.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _resized(x: Tensor, dim: int, first: Tensor, length: Tensor, size: int) -> Tensor:
    """Dimension 2 or 3 of images: places `first` to first + length - 1 of each, resized."""
    # Twice `size` times the place of each pixel in its box, a whole number, so that the pixels
    # between which it lies are exactly those on every device.
    pixels = torch.arange(size, device=x.device)
    place = (2 * pixels + 1) * length[:, None] - size
    place = place.clamp(min=0).minimum(2 * size * (length[:, None] - 1))
    before = place // (2 * size)
    after = (before + 1).minimum(length[:, None] - 1)
    weight = (place - 2 * size * before).to(x.dtype) / (2 * size)
    shape, wide = [len(x), 1, 1, 1], list(x.shape)
    shape[dim] = wide[dim] = size
    low, high = (
        x.gather(dim, (first[:, None] + which).view(shape).expand(wide))
        for which in (before, after)
    )
    return low.lerp(high, weight.view(shape))


def _shown(x: Tensor) -> Tensor:
    """Images on the scale from 0 to 1."""
    check_pixels(x)
    return x if x.is_floating_point() else x.to(torch.float32) / 255


def _uniform(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu")


def _between(low: float, high: float, draws: Tensor) -> Tensor:
    """Numbers uniform in [low, high] from numbers uniform in [0, 1)."""
    return low + (high - low) * draws
