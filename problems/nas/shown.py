"""The pictures of a run of the recipe.

genotype PROGRAM SEED    the network that was found, or was given
mixing PROGRAM SEED      mixing weights over the search
skip connections         how many the derived network would have, over all searches
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlo.report.style import styled
from problems.nas.genotype import read_genotype
from problems.nas.pictures import Labels, derived, genotype_figure, mixing_figure, skips_figure
from problems.nas.space import CellSpace, SearchSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kept = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Stage -> seed -> what it handed on."""


def pictures(kept: Kept, space: SearchSpace, title: str) -> Iterator[tuple[str, Figure]]:
    """Draw all there is to draw, as (name, figure).

    Args:
        kept: what the stages that are over have handed on.
        space: that of the searches.
        title: begins the title of every picture.

    Raises:
        DataError: matplotlib is not installed.
    """
    histories: dict[str, dict[int, tuple[Any, Any]]] = {}
    found: set[tuple[str, int]] = set()
    for stage, seeds in kept.items():
        program = stage.rpartition(" ")[0]
        for seed, handed in seeds.items():
            if (program, seed) not in found:  # the evaluation has the genotype of its search
                found.add((program, seed))
                genotype = read_genotype(handed["genotype"])
                with styled():
                    yield (
                        f"genotype {program} seed {seed}",
                        genotype_figure(genotype, f"{title}: found by {program}, seed {seed}"),
                    )
            if "history" in handed:
                history = handed["history"]
                histories.setdefault(program, {})[seed] = (history["ticks"], history["skips"])
                with styled():
                    figure = _mixing(history, space, f"{title}: {program}, seed {seed}")
                yield f"mixing {program} seed {seed}", figure
    if histories:
        with styled():
            yield "skip connections", skips_figure(histories, most_skips(space), title)


def most_skips(space: SearchSpace) -> int:
    """How many skip connections a genotype can have: in a normal cell, or in a chain."""
    return 2 * space.nodes if isinstance(space, CellSpace) else len(space.parts["layers"])


def _mixing(history: Mapping[str, Any], space: SearchSpace, title: str) -> Figure:
    mixing = history["mixing"]
    names = Labels.of(space)
    last = {part: weights[-1] for part, weights in mixing.items()}
    arrays = {part: weights.numpy() for part, weights in mixing.items()}
    return mixing_figure(
        history["ticks"].numpy(),
        arrays,
        names.edges,
        names.operations,
        title,
        chosen=derived(space, last),
    )
