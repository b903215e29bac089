"""Search spaces: the derived genotype, random ones, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from mlo.errors import ConfigurationError
from problems.nas.architecture import Architecture
from problems.nas.genotype import Cell, Choice, Genotype, MacroGenotype
from problems.nas.space import DARTS_OPERATIONS, MACRO_OPERATIONS, CellSpace, Edge, MacroSpace

THREE = ("none", "conv_1x1", "skip_connect")


def uneven() -> CellSpace:
    """Edges with different candidates, in another order than that of their ends."""
    edges = (
        Edge(2, 3, ("skip_connect", "none")),
        Edge(1, 2, ("conv_3x3", "none", "max_pool_3x3")),
        Edge(0, 2, ("none", "conv_1x1")),
        Edge(1, 3, ("none",)),
        Edge(0, 3, ("sep_conv_3x3", "dil_conv_3x3", "conv_1x1", "none")),
    )
    return CellSpace({"normal": edges, "reduce": edges[::-1]}, nodes=2)


def brute_cell(edges: tuple[Edge, ...], mixing: torch.Tensor, nodes: int) -> Cell:
    """Of all pairs of choices on different inputs, the one with the largest sum, for each node.

    The two strongest edges at their largest weights are what maximizes the sum of two weights.
    """
    pairs = []
    for node in range(2, nodes + 2):
        choices = [
            (float(mixing[row, column]), name, edge.source)
            for row, edge in enumerate(edges)
            if edge.target == node
            for column, name in enumerate(edge.operations)
            if name != "none"
        ]
        options = [p for p in itertools.combinations(choices, 2) if p[0][2] != p[1][2]]
        best = max(options, key=lambda pair: pair[0][0] + pair[1][0])
        pairs.append(sorted(best, key=lambda choice: choice[2]))
    return Cell(
        nodes=[[Choice(operation=o, input=i) for _, o, i in pair] for pair in pairs],
        concat=range(2, nodes + 2),
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("space", [CellSpace.darts(), CellSpace.darts(3, THREE), uneven()])
def test_the_derived_genotype_is_the_best_of_all(space, seed):
    torch.manual_seed(seed)
    mixing = {part: torch.rand(space.shape(part)) for part in space.parts}
    normal, reduce = (
        brute_cell(space.parts[part], mixing[part], space.nodes) for part in ("normal", "reduce")
    )
    assert space.genotype(mixing) == Genotype(normal=normal, reduce=reduce)


def test_a_large_weight_of_none_or_of_no_candidate_counts_for_nothing():
    space = uneven()
    mixing = {part: torch.rand(space.shape(part)) for part in space.parts}
    expected = space.genotype(mixing)
    for part, edges in space.parts.items():
        for row, edge in enumerate(edges):
            mixing[part][row, edge.operations.index("none")] = 9.0
            mixing[part][row, len(edge.operations) :] = math.nan
    assert space.genotype(mixing) == expected


def test_of_equal_weights_the_first_candidate_and_the_earliest_states_are_taken():
    space = CellSpace.darts()
    mixing = {part: torch.full((14, 8), 0.125) for part in space.parts}
    pair = tuple(Choice(operation="max_pool_3x3", input=state) for state in (0, 1))
    genotype = space.genotype(mixing)
    assert genotype.normal.nodes == genotype.reduce.nodes == (pair,) * 4
    reversed_rows = CellSpace({part: edges[::-1] for part, edges in space.parts.items()})
    assert reversed_rows.genotype(mixing) == genotype
    chain = MacroSpace.chain(3)
    layers = chain.genotype({"layers": torch.ones(3, len(MACRO_OPERATIONS))}).layers
    assert layers == (MACRO_OPERATIONS[0],) * 3


def test_a_chain_takes_the_largest_weight_of_each_layer():
    edges = (Edge(0, 1, ("conv_1x1", "conv_3x3", "conv_5x5")), Edge(1, 2, ("conv_5x5",)))
    space = MacroSpace({"layers": edges})
    mixing = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.8, math.nan]])
    assert space.genotype({"layers": mixing}) == MacroGenotype(layers=("conv_3x3", "conv_5x5"))


def test_darts_has_fourteen_edges_of_eight_operations():
    space = CellSpace.darts()
    ends = [(edge.source, edge.target) for edge in space.parts["normal"]]
    assert ends == [(s, t) for t in (2, 3, 4, 5) for s in range(t)]
    assert space.shape("normal") == space.shape("reduce") == (14, 8)
    assert {edge.operations for edge in space.parts["reduce"]} == {DARTS_OPERATIONS}


def assert_uniform(counts: Counter, outcomes: int, draws: int) -> None:
    """Every outcome within five standard deviations of its expected number."""
    assert len(counts) == outcomes
    p = 1 / outcomes
    spread = 5 * math.sqrt(draws * p * (1 - p))
    assert all(abs(count - draws * p) < spread for count in counts.values()), counts


def test_random_cells_are_drawn_with_equal_probability():
    space = CellSpace.darts(2, THREE)
    generator = torch.Generator().manual_seed(1)
    draws = [space.random_genotype(generator) for _ in range(3000)]
    assert_uniform(Counter(draw.normal.nodes[0] for draw in draws), 4, 3000)
    assert_uniform(Counter(draw.normal.nodes[1] for draw in draws), 12, 3000)
    assert_uniform(Counter(draw.reduce.nodes[1] for draw in draws), 12, 3000)
    both = Counter((draw.normal.nodes[0], draw.reduce.nodes[0]) for draw in draws)
    assert_uniform(both, 16, 3000)


def test_random_cells_of_uneven_edges_are_drawn_with_equal_probability():
    generator = torch.Generator().manual_seed(1)
    draws = [uneven().random_genotype(generator) for _ in range(2000)]
    assert_uniform(Counter(draw.normal.nodes[0] for draw in draws), 2, 2000)
    assert_uniform(Counter(draw.reduce.nodes[1] for draw in draws), 3, 2000)


def test_random_chains_are_drawn_with_equal_probability():
    space = MacroSpace.chain(2, ("conv_1x1", "conv_3x3", "conv_5x5"))
    generator = torch.Generator().manual_seed(1)
    counts = Counter(space.random_genotype(generator).layers for _ in range(2000))
    assert_uniform(counts, 9, 2000)


def test_a_generator_makes_random_genotypes_repeatable_and_is_all_they_use():
    for space in (CellSpace.darts(), MacroSpace.chain()):
        before = torch.get_rng_state()
        first, second = (
            [space.random_genotype(g) for _ in range(3)]
            for g in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
        )
        assert first == second
        assert first[0] != first[1]
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
        assert space.random_genotype() == first[0]


EDGES = CellSpace.darts(2, THREE).parts["normal"]


def cells(*edges: Edge, nodes: int = 2) -> CellSpace:
    return CellSpace({"normal": EDGES, "reduce": edges}, nodes)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CellSpace.darts(operations=("conv_33",)), ["'conv_33'", "mean 'conv_3x3'"]),
        (lambda: CellSpace.darts(operations=()), ["normal", "0 to 2", "at least one operation"]),
        (lambda: CellSpace.darts(operations=("conv_1x1",) * 2), ["each operation once"]),
        (lambda: CellSpace.darts(0), ["nodes", "found 0"]),
        (lambda: CellSpace({"normal": EDGES}, 2), ["'normal' and 'reduce'", "['normal']"]),
        (lambda: cells(*EDGES[:2]), ["'reduce'", "node 3", "found none"]),
        (lambda: cells(*EDGES, EDGES[3]), ["edge 5", "'reduce'", "second one from 1 to 3"]),
        (lambda: cells(*EDGES, Edge(3, 3, THREE)), ["edge 5", "found 3 to 3"]),
        (lambda: cells(*EDGES, Edge(0, 4, THREE)), ["edge 5", "found 0 to 4"]),
        (lambda: cells(*EDGES, Edge(0, 1, THREE)), ["edge 5", "found 0 to 1"]),
        (lambda: cells(*EDGES, Edge(-1, 2, THREE)), ["edge 5", "found -1 to 2"]),
        (lambda: MacroSpace.chain(0), ["layers", "found 0"]),
        (lambda: MacroSpace.chain(2, THREE), ["layer 0", "other than 'none'"]),
        (lambda: MacroSpace.chain(2, ()), ["0 to 1", "at least one operation"]),
        (lambda: MacroSpace({"layers": ()}), ["'layers'", "0"]),
        (lambda: MacroSpace({"layer": EDGES}), ["'layers'", "layer"]),
        (lambda: MacroSpace({"layers": (Edge(1, 2, ("conv_1x1",)),)}), ["layer 0", "1 to 2"]),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(build, words):
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_node_whose_edges_leave_no_choice_is_refused_when_a_genotype_is_asked_for():
    edges = (Edge(0, 2, THREE), Edge(1, 2, ("none",)))
    space = CellSpace({"normal": edges, "reduce": edges}, nodes=1)
    mixing = {part: torch.rand(2, 3) for part in space.parts}
    for ask in (lambda: space.genotype(mixing), space.random_genotype):
        with pytest.raises(ConfigurationError, match=r"'normal', node 2: .* two edges.*found 1"):
            ask()


@pytest.mark.parametrize("space", [CellSpace.darts(), MacroSpace.chain()])
def test_mixing_weights_that_do_not_fit_are_refused(space):
    part = [*space.parts][-1]
    mixing = {each: torch.rand(space.shape(each)) for each in space.parts}
    with pytest.raises(ConfigurationError, match=f"'{part}'.*shape"):
        space.genotype({**mixing, part: mixing[part].T})
    with pytest.raises(ConfigurationError, match=f"'{part}'"):
        space.genotype({each: mixing[each] for each in space.parts if each != part})
    mixing[part][1, 2] = math.nan
    name = space.parts[part][1].operations[2]
    with pytest.raises(ConfigurationError, match=f"NaN for '{name}' of edge 1"):
        space.genotype(mixing)


def test_the_architecture_starts_small_and_gives_the_softmax():
    space = CellSpace.darts()
    torch.manual_seed(4)
    architecture = Architecture(space)
    torch.manual_seed(4)
    alphas = [1e-3 * torch.randn(14, 8) for _ in range(2)]
    assert [name for name, _ in architecture.named_parameters()] == ["alpha_normal", "alpha_reduce"]
    for alpha, expected in zip(architecture.parameters(), alphas, strict=True):
        assert torch.equal(alpha, expected)
    mixing = architecture()
    expected = {
        part: alpha.exp() / alpha.exp().sum(1, keepdim=True)
        for part, alpha in zip(("normal", "reduce"), alphas, strict=True)
    }
    for part in expected:
        torch.testing.assert_close(mixing[part], expected[part], rtol=1e-14, atol=0)
    assert architecture.genotype() == space.genotype(expected)
    assert not Architecture(space, scale=0.0).alpha_normal.any()


def test_the_architecture_gives_no_weight_and_no_gradient_where_there_is_no_candidate():
    space = uneven()
    architecture = Architecture(space, scale=1.0)
    mixing = architecture()
    for part, edges in space.parts.items():
        alpha = getattr(architecture, f"alpha_{part}")
        (gradient,) = torch.autograd.grad(mixing[part].square().sum(), alpha)
        for row, edge in enumerate(edges):
            count = len(edge.operations)
            own = alpha[row, :count].exp()
            torch.testing.assert_close(mixing[part][row, :count], own / own.sum())
            assert not mixing[part][row, count:].any()
            assert not gradient[row, count:].any()
            assert count == 1 or gradient[row, :count].all()
    assert [*architecture.state_dict()] == ["alpha_normal", "alpha_reduce"]
    assert isinstance(architecture.genotype(), Genotype)
