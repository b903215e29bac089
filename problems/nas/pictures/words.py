"""What operations are called in pictures and in the progress, and the colour of each kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from mlo.report.style import MUTED, PALETTE
from problems.nas.genotype import Cell, Genotype, MacroGenotype

_BLUE, _ORANGE, _GREEN, _PURPLE, _OCHRE, *_ = PALETTE


class Words(NamedTuple):
    """How an operation is named.

    Attributes:
        name: in pictures.
        brief: in one line of text and where rows are narrow; never that of another operation.
        color: of its kind: passing on, pooling, separable, dilated or plain convolution.
    """

    name: str
    brief: str
    color: str


_WORDS = {
    "none": Words("none", "none", MUTED),
    "skip_connect": Words("skip", "skip", _ORANGE),
    "max_pool_3x3": Words("max pool 3×3", "max3", _GREEN),
    "avg_pool_3x3": Words("avg pool 3×3", "avg3", _GREEN),
    "sep_conv_3x3": Words("sep conv 3×3", "sep3", _BLUE),
    "sep_conv_5x5": Words("sep conv 5×5", "sep5", _BLUE),
    "sep_conv_7x7": Words("sep conv 7×7", "sep7", _BLUE),
    "dil_conv_3x3": Words("dil conv 3×3", "dil3", _PURPLE),
    "dil_conv_5x5": Words("dil conv 5×5", "dil5", _PURPLE),
    "conv_1x1": Words("conv 1×1", "conv1", _OCHRE),
    "conv_3x3": Words("conv 3×3", "conv3", _OCHRE),
    "conv_5x5": Words("conv 5×5", "conv5", _OCHRE),
    "conv_7x1_1x7": Words("conv 7×1, 1×7", "conv7", _OCHRE),
}


def words(operation: str) -> Words:
    """The words of an operation; one that is not in the table is called what it is called."""
    if operation in _WORDS:
        return _WORDS[operation]
    return Words(operation.replace("_", " "), operation, MUTED)


def genotype_line(genotype: Genotype | MacroGenotype) -> str:
    """A genotype in one line of plain letters, about 100 for a genotype of DARTS.

    Of a cell, each node is a word such as ``0sep3+1skip``: a separable convolution of state 0 plus
    state 1, where 0 and 1 are the inputs of the cell and node i is state 2 + i. Of a chain, each
    layer is a word, and the same ones in a row are counted, as in ``conv3 skip*4``. Genotypes with
    the same line are the same network, but for the order of the two operations of a node and
    which nodes are the output.
    """
    if isinstance(genotype, MacroGenotype):
        return _chain([words(operation).brief for operation in genotype.layers])
    return f"normal {_cell(genotype.normal)}; reduce {_cell(genotype.reduce)}"


def _cell(cell: Cell) -> str:
    nodes = (sorted(pair, key=lambda choice: choice.input) for pair in cell.nodes)
    return " ".join(
        "+".join(f"{choice.input}{words(choice.operation).brief}" for choice in pair)
        for pair in nodes
    )


def _chain(layers: Sequence[str]) -> str:
    counts = ((name, len(list(group))) for name, group in itertools.groupby(layers))
    return " ".join(name if count == 1 else f"{name}*{count}" for name, count in counts)
