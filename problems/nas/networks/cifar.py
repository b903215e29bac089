"""The network of DARTS for CIFAR, which takes images and sequences of any size."""

from __future__ import annotations

from torch import Tensor

from problems.models.sizes import check_positive
from problems.nas.genotype import Genotype
from problems.nas.networks.auxiliary import AuxiliaryHead
from problems.nas.networks.cells import CellNetwork
from problems.nas.skeleton import make_stem

AUXILIARY_STRIDE = 3
"""Of the mean in the auxiliary head."""


class CifarNetwork(CellNetwork):
    """A stem of one convolution, cells, the mean over all places, a linear layer.

    With `DARTS_V2`, 36 channels and 20 layers it has 3,349,342 parameters for ten classes, without
    the auxiliary head.

    Source: the code of H. Liu et al., DARTS, ICLR 2019 (`NetworkCIFAR`).

    Args:
        genotype: the cells.
        classes: number of classes K.
        channels: C of the nodes of the first cells.
        layers: number of cells, at least 3.
        auxiliary: whether there is an auxiliary head behind the second cell that reduces. It needs
            inputs of at least 29 places a side.
        inputs: channels of the images or sequences.
        stem_multiplier: the stem has so many times C channels.
        dimensions: 2 for images, 1 for sequences.

    Raises:
        ConfigurationError: The genotype is none of cells, or a number is too small.
    """

    def __init__(
        self,
        genotype: Genotype,
        classes: int,
        *,
        channels: int = 36,
        layers: int = 20,
        auxiliary: bool = True,
        inputs: int = 3,
        stem_multiplier: int = 3,
        dimensions: int = 2,
    ) -> None:
        check_positive(channels=channels, inputs=inputs, stem_multiplier=stem_multiplier)
        width = stem_multiplier * channels
        super().__init__(
            genotype,
            classes,
            channels=channels,
            layers=layers,
            before=width,
            dimensions=dimensions,
        )
        self.stem = make_stem(inputs, width, dimensions)
        if auxiliary:
            self.auxiliary = AuxiliaryHead(
                self.branch_channels, classes, stride=AUXILIARY_STRIDE, dimensions=dimensions
            )

    def states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs of the first cell are the stem."""
        x = self.stem(x)
        return x, x
