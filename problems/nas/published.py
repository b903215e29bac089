"""Genotypes that were published, as values to evaluate and to compare with.

Those of NASNet and AmoebaNet, which are in the code of DARTS too, are not here: they have nodes
with the same input twice, which no space of this library has.
"""

from __future__ import annotations

from mlo.errors import ConfigurationError
from problems.nas.genotype import Genotype, read_genotype


def _published(text: str) -> Genotype:
    genotype = read_genotype(text)
    if not isinstance(genotype, Genotype):
        raise ConfigurationError(f"genotype: expected one of cells, found {genotype}.")
    return genotype


DARTS_V1 = _published(
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
    "('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])"
)
"""DARTS of first order on CIFAR-10 (Liu et al., 2019; DARTS_V1 in the code of P-DARTS)."""

DARTS_V2 = _published(
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
    "('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
"""DARTS of second order on CIFAR-10 (Liu et al., 2019; DARTS_V2 in the code of P-DARTS)."""

P_DARTS = _published(
    "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), "
    "('dil_conv_5x5', 4)], normal_concat=range(2, 6), "
    "reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
    "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), "
    "('dil_conv_5x5', 3)], reduce_concat=range(2, 6))"
)
"""P-DARTS on CIFAR-10 (Chen et al., 2019; PDARTS in its code)."""

PC_DARTS = _published(
    "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
    "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), "
    "('dil_conv_3x3', 1)], normal_concat=range(2, 6), "
    "reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
    "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 2)], reduce_concat=range(2, 6))"
)
"""PC-DARTS on CIFAR-10 (Xu et al., 2020; PC_DARTS_cifar in its code)."""

PC_DARTS_IMAGENET = _published(
    "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), "
    "('skip_connect', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), "
    "('dil_conv_5x5', 4)], normal_concat=range(2, 6), "
    "reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), "
    "('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), "
    "('sep_conv_3x3', 3)], reduce_concat=range(2, 6))"
)
"""PC-DARTS on ImageNet (Xu et al., 2020; PC_DARTS_image in its code)."""

PUBLISHED = {
    "darts-v1": DARTS_V1,
    "darts-v2": DARTS_V2,
    "p-darts": P_DARTS,
    "pc-darts": PC_DARTS,
    "pc-darts-imagenet": PC_DARTS_IMAGENET,
}
"""All of them, by the names that settings use."""
