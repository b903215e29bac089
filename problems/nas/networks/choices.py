"""The discrete network of a genotype, for the shape of the inputs that it is to take."""

from __future__ import annotations

import dataclasses

from torch import nn

from mlo.errors import ConfigurationError
from problems.models.sizes import check_known
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.networks import cifar, imagenet
from problems.nas.networks.auxiliary import smallest_map
from problems.nas.networks.cells import check_genotype
from problems.nas.networks.macro import MacroNetwork
from problems.nas.skeleton import check_shape, halves


@dataclasses.dataclass(frozen=True)
class Stem:
    """What a stem decides.

    Attributes:
        halvings: how often it halves the size.
        layers: cells of its network, where no number is given.
        stride: of the mean in the auxiliary head.
    """

    halvings: int
    layers: int
    stride: int


STEMS = {
    "cifar": Stem(halvings=0, layers=20, stride=cifar.AUXILIARY_STRIDE),
    "imagenet": Stem(halvings=3, layers=14, stride=imagenet.AUXILIARY_STRIDE),
}
"""The stems: one convolution that keeps the size, or three that halve it."""


def make_network(
    genotype: Genotype | MacroGenotype,
    classes: int,
    shape: tuple[int, ...],
    *,
    channels: int,
    layers: int | None = None,
    auxiliary: bool = False,
    stem: str = "cifar",
) -> nn.Module:
    """Build the network of a genotype for inputs of a shape.

    Args:
        genotype: cells or a chain.
        classes: number of classes K.
        shape: of one input, (C, H, W) or (C, L).
        channels: of the first layers.
        layers: number of cells; if None 20, or 14 with the stem "imagenet". A chain has its own.
        auxiliary: whether there is an auxiliary head; only for cells.
        stem: "cifar", which keeps the size, or "imagenet", for cells and images.

    Returns:
        A module from inputs [n, *shape], and a probability of dropping paths, to logits [n, K]. Its
        method `with_auxiliary` returns (logits, auxiliary logits or None). The names of the
        parameters of the auxiliary head begin with "auxiliary".

    Raises:
        ConfigurationError: The genotype does not fit layers, stem, auxiliary head or shape, or a
            number is none to build a network with.
    """
    check_shape(shape)
    check_known("stem", stem, STEMS)
    if isinstance(genotype, MacroGenotype):
        _check_chain(genotype, layers, auxiliary=auxiliary, stem=stem)
        _check_size(len(genotype.layers), shape, auxiliary=False, stem=stem)
        dimensions = len(shape) - 1
        return MacroNetwork(
            genotype, classes, channels=channels, inputs=shape[0], dimensions=dimensions
        )
    layers = STEMS[stem].layers if layers is None else layers
    check_genotype(genotype, layers)
    if stem == "imagenet" and len(shape) != 3:
        raise ConfigurationError(
            "genotype: expected images (C, H, W) for a network of cells with stem 'imagenet', "
            f"found shape {shape}. Use the stem 'cifar' for sequences."
        )
    _check_size(layers, shape, auxiliary=auxiliary, stem=stem)
    sizes = {"channels": channels, "layers": layers, "inputs": shape[0]}
    if stem == "cifar":
        return cifar.CifarNetwork(
            genotype, classes, auxiliary=auxiliary, dimensions=len(shape) - 1, **sizes
        )
    return imagenet.ImageNetNetwork(genotype, classes, auxiliary=auxiliary, **sizes)


def _check_chain(
    genotype: MacroGenotype, layers: int | None, *, auxiliary: bool, stem: str
) -> None:
    if layers not in (None, len(genotype.layers)):
        raise ConfigurationError(
            f"genotype: expected layers to be {len(genotype.layers)}, as many as the chain has, "
            f"found {layers}. Leave layers out, or give another chain."
        )
    if stem != "cifar":
        raise ConfigurationError(
            f"genotype: expected the stem 'cifar' for a chain of layers, found {stem!r}. Name that "
            "one, or give a genotype of cells."
        )
    if auxiliary:
        raise ConfigurationError(
            "genotype: expected auxiliary to be False for a chain of layers, found True. Turn it "
            "off, or give a genotype of cells."
        )


def _check_size(layers: int, shape: tuple[int, ...], *, auxiliary: bool, stem: str) -> None:
    """Refuse inputs that cannot be halved so often, or leave too little to the auxiliary head."""
    times = STEMS[stem].halvings + sum(halves(layer, layers) for layer in range(layers))
    if min(shape[1:]) < 2**times:
        other = ", or use the stem 'cifar'" if stem != "cifar" else ""
        raise ConfigurationError(
            f"genotype: expected inputs of at least {2**times} places a side, since a network of "
            f"{layers} layers halves them {times} times, found shape {shape}. Give larger inputs"
            f"{other}."
        )
    if not auxiliary:
        return
    # ⌈H / 2^t⌉ places are left; this is the least H that leaves enough.
    least = (smallest_map(STEMS[stem].stride) - 1) * 2**times + 1
    if min(shape[1:]) < least:
        raise ConfigurationError(
            f"genotype: expected inputs of at least {least} places a side for the auxiliary head "
            f"of its network, found shape {shape}. Turn it off by auxiliary=False, or give larger "
            "inputs."
        )
