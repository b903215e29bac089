"""The searches without a supernet: candidates, and how long each may be trained."""

from __future__ import annotations

from typing import NamedTuple

from mlo.configuration import combine, configure
from problems.datasets.task import part_generator
from problems.nas.genotype import MacroGenotype
from problems.nas.recipe import recipe
from problems.nas.scene import space_of
from problems.nas.space import SearchSpace
from problems.nas.study.compute import training_operations
from problems.nas.study.plan import COMMON, PROXY_TICKS


class Candidate(NamedTuple):
    """A genotype, in JSON, and the ticks for which it is trained before it is compared."""

    genotype: str
    ticks: int


def random_candidates(seed: int, budget: float, ticks: int = PROXY_TICKS) -> list[Candidate]:
    """Draw genotypes, one at least, until their trainings have used up the budget.

    Args:
        seed: decides the draws.
        budget: floating-point operations.
        ticks: for how long each is trained.
    """
    space, generator = _space(), part_generator(seed, "genotype")
    found: list[Candidate] = []
    spent = 0.0
    while True:
        genotype = space.random_genotype(generator).to_json()
        spent += ticks * training_operations(genotype)
        if found and spent > budget:
            return found
        found.append(Candidate(genotype, ticks))


def single_candidates(budget: float) -> list[Candidate]:
    """One chain for each operation, each with the same share of the budget.

    None is trained for longer than the network that is then trained from scratch.
    """
    layers = _space().parts["layers"]
    operations = layers[0].operations
    genotypes = [MacroGenotype(layers=(name,) * len(layers)).to_json() for name in operations]
    share = budget / len(operations)
    most = COMMON["evaluation"]["ticks"]
    lengths = [max(1, round(share / training_operations(g))) for g in genotypes]
    return [Candidate(g, min(most, ticks)) for g, ticks in zip(genotypes, lengths, strict=True)]


def _space() -> SearchSpace:
    return space_of(configure(recipe.config, combine(COMMON), title=recipe.name))
