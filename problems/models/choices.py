"""Networks by name, for the shape of the inputs that they are to take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from mlo.errors import ConfigurationError, listed, nearest
from problems.models.cifar_resnet import cifar_resnet
from problems.models.resnet import resnet_classifier, resnet_encoder
from problems.models.sequence import SHORTEST, sequence_classifier, sequence_encoder
from problems.models.small import SMALLEST, conv_classifier, conv_encoder
from problems.models.vgg import SMALLEST_VGG, vgg19_bn
from problems.models.wide_resnet import wide_resnet

Shape = tuple[int, ...]
"""Of one input: (C, H, W) of an image, (C, L) of a sequence."""


def make_classifier(name: str, classes: int, shape: Shape, **options: Any) -> nn.Module:
    """Build the classifier of a name.

    Args:
        name: one of `CLASSIFIERS`. "small" is `conv_classifier` or `sequence_classifier`, by the
            shape.
        classes: Number of classes K.
        shape: of one input, (C, H, W) or (C, L).
        options: width, features and batch_norm of "small"; stem of "resnet..."; dropout of
            "wrn-28-10" and "vgg19-bn"; grid of "vgg19-bn", which otherwise is what the images give,
            up to 7. An option that is not given is that of the network.

    Returns:
        A module from inputs [n, *shape] to logits [n, K].

    Raises:
        ConfigurationError: If there is no such name, the network has no such option or takes no
            such shape, or a number is not one to build it with.
    """
    build = _chosen("classifier", name, CLASSIFIERS, options)
    return build(classes, shape, **options)


def make_encoder(name: str, shape: Shape, **options: Any) -> nn.Module:
    """Build the feature encoder of a name; the features are not negative.

    Args:
        name: one of `ENCODERS`. "small" is `conv_encoder` or `sequence_encoder`, by the shape.
        shape: of one input, (C, H, W) or (C, L).
        options: width, features and batch_norm of "small"; stem of "resnet...".

    Returns:
        A module from inputs [n, *shape] to features [n, F].

    Raises:
        ConfigurationError: As `make_classifier`.
    """
    build = _chosen("encoder", name, ENCODERS, options)
    return build(shape, **options)


def _chosen(
    kind: str, name: str, known: Mapping[str, Callable], options: Mapping[str, Any]
) -> Callable:
    if name not in known:
        raise ConfigurationError(
            f"{kind}: expected one of {listed(known)}, found {name!r}{nearest(name, known)}. "
            "Name one of them."
        )
    parameters = inspect.signature(known[name]).parameters.values()
    allowed = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            raise ConfigurationError(
                f"{kind} '{name}': expected options among {listed(allowed)}, found "
                f"'{option}'{nearest(option, allowed)}. Leave it out, or choose another network."
            )
    return known[name]


def _channels(shape: Shape, least: int = 1) -> int:
    """The channels of images, of which each side must have so many pixels."""
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < least:
        raise ConfigurationError(
            f"shape: expected images (C, H, W) of at least {least} x {least} pixels, found "
            f"{shape}. Choose another network, or larger images."
        )
    return shape[0]


def _small(images: Callable, sequences: Callable, shape: Shape, options: Mapping) -> nn.Module:
    given = {name: value for name, value in options.items() if value is not None}
    if len(shape) != 2:
        return images(channels=_channels(shape, SMALLEST), **given)
    if shape[0] < 1 or shape[1] < SHORTEST:
        raise ConfigurationError(
            f"shape: expected sequences (C, L) of at least {SHORTEST} numbers, found {shape}. "
            "Give longer ones."
        )
    return sequences(channels=shape[0], **given)


def _small_classifier(
    classes: int,
    shape: Shape,
    *,
    width: int | None = None,
    features: int | None = None,
    batch_norm: bool = False,
) -> nn.Module:
    options = {"width": width, "features": features, "batch_norm": batch_norm}
    images, sequences = partial(conv_classifier, classes), partial(sequence_classifier, classes)
    return _small(images, sequences, shape, options)


def _small_encoder(
    shape: Shape,
    *,
    width: int | None = None,
    features: int | None = None,
    batch_norm: bool = False,
) -> nn.Module:
    options = {"width": width, "features": features, "batch_norm": batch_norm}
    return _small(conv_encoder, sequence_encoder, shape, options)


def _resnet32(classes: int, shape: Shape) -> nn.Module:
    return cifar_resnet(32, classes, channels=_channels(shape))


def _wide(classes: int, shape: Shape, *, dropout: float = 0.0) -> nn.Module:
    return wide_resnet(28, 10, classes=classes, dropout=dropout, channels=_channels(shape))


def _vgg(classes: int, shape: Shape, *, grid: int | None = None, dropout: float = 0.5) -> nn.Module:
    channels = _channels(shape, SMALLEST_VGG)
    places = min(7, min(shape[1:]) // SMALLEST_VGG) if grid is None else grid
    return vgg19_bn(classes, grid=places, dropout=dropout, channels=channels)


def _resnet(depth: int, classes: int, shape: Shape, *, stem: str = "imagenet") -> nn.Module:
    return resnet_classifier(depth, classes, stem=stem, channels=_channels(shape))


def _resnet_encoder(depth: int, shape: Shape, *, stem: str = "imagenet") -> nn.Module:
    return resnet_encoder(depth, stem=stem, channels=_channels(shape))


_DEPTHS = (18, 34, 50, 101)

CLASSIFIERS: Mapping[str, Callable[..., nn.Module]] = {
    "small": _small_classifier,
    "resnet32": _resnet32,
    "wrn-28-10": _wide,
    "vgg19-bn": _vgg,
    **{f"resnet{depth}": partial(_resnet, depth) for depth in _DEPTHS},
}
"""Classifiers: each is called with the classes, the shape of one input, and options."""

ENCODERS: Mapping[str, Callable[..., nn.Module]] = {
    "small": _small_encoder,
    **{f"resnet{depth}": partial(_resnet_encoder, depth) for depth in _DEPTHS},
}
"""Feature encoders: each is called with the shape of one input, and options."""
