"""The network of DARTS for ImageNet."""

from __future__ import annotations

from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.models.sizes import check_positive
from problems.nas.genotype import Genotype
from problems.nas.networks.auxiliary import AuxiliaryHead
from problems.nas.networks.cells import CellNetwork

AUXILIARY_STRIDE = 2
"""Of the mean in the auxiliary head."""


class ImageNetNetwork(CellNetwork):
    """A stem of three convolutions of stride 2, cells, the mean over all places, a linear layer.

    The first cell sees a quarter of the size and an eighth. With `DARTS_V2`, 48 channels and 14
    layers it has 4,718,752 parameters for a thousand classes, without the auxiliary head.

    Source: the code of H. Liu et al., DARTS, ICLR 2019 (`NetworkImageNet`).

    Args:
        genotype: the cells.
        classes: number of classes K.
        channels: C of the nodes of the first cells, at least 2.
        layers: number of cells, at least 3.
        auxiliary: whether there is an auxiliary head behind the second cell that reduces, without
            normalization after its second convolution. It needs inputs of at least 193 places a
            side.
        inputs: channels of the images.

    Raises:
        ConfigurationError: The genotype is none of cells, or a number is too small.
    """

    def __init__(
        self,
        genotype: Genotype,
        classes: int = 1000,
        *,
        channels: int = 48,
        layers: int = 14,
        auxiliary: bool = True,
        inputs: int = 3,
    ) -> None:
        check_positive(inputs=inputs)
        if channels < 2:
            raise ConfigurationError(
                f"channels: expected at least 2, found {channels}. The first convolution has half "
                "of them."
            )
        super().__init__(
            genotype, classes, channels=channels, layers=layers, before=channels, reduced=True
        )
        self.stem0 = nn.Sequential(
            *_halving(inputs, channels // 2), nn.ReLU(), *_halving(channels // 2, channels)
        )
        self.stem1 = nn.Sequential(nn.ReLU(), *_halving(channels, channels))
        if auxiliary:
            self.auxiliary = AuxiliaryHead(
                self.branch_channels, classes, stride=AUXILIARY_STRIDE, last_norm=False
            )

    def states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the first cell are two parts of the stem, of different sizes."""
        x = self.stem0(x)
        return x, self.stem1(x)


def _halving(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """A convolution of stride 2 and its normalization."""
    return (
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )
