"""Search networks: sizes, the mixed sum against its parts, and gradients against differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.nas.architecture import Architecture
from problems.nas.mixed import Candidates
from problems.nas.operations import OPERATIONS, make_operation
from problems.nas.space import DARTS_OPERATIONS, CellSpace, Edge, MacroSpace, SearchSpace
from problems.nas.supernet import CellSupernet, MacroSupernet, make_supernet

SMALL = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3")
SHAPES = [(1, 8, 8), (1, 40), (3, 7, 9), (2, 11)]


def draw_mixing(space: SearchSpace) -> dict[str, Tensor]:
    return Architecture(space, scale=1.0)()


def small_network(shape: tuple[int, ...] = (2, 5, 6)) -> tuple[CellSpace, nn.Module, Tensor]:
    space = CellSpace.darts(2, SMALL)
    network = make_supernet(space, 3, shape, channels=2, layers=3)
    x = torch.randn(4, *shape)
    network(x, draw_mixing(space))  # running statistics that are not those of the start
    return space, network.eval(), x


@pytest.mark.parametrize(("classes", "count"), [(10, 1_930_618), (100, 1_953_748)])
def test_the_supernet_of_darts_has_the_published_number_of_weights(classes, count):
    with torch.device("meta"):
        network = CellSupernet(CellSpace.darts(), classes)
    assert sum(p.numel() for p in network.parameters()) == count


def test_only_the_stem_has_a_learned_scale_and_all_normalizations_count():
    space, network, _ = small_network()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(norm.affine for norm in norms) == 1
    assert network.stem[1].affine
    assert all(norm.track_running_stats for norm in norms)
    # The stem, two inputs a cell, and of each edge two for pooling, four or five for the rest.
    edges = len(space.parts["normal"])
    assert len(norms) == 1 + 3 * 2 + 3 * edges * 4 + 2 * 4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_networks_of_both_spaces_take_images_and_sequences(shape):
    x = torch.randn(4, *shape)
    for space in (CellSpace.darts(2), MacroSpace.chain(6)):
        network = make_supernet(space, 7, shape, channels=2)
        assert network(x, draw_mixing(space)).shape == (4, 7)
    assert len(make_supernet(CellSpace.darts(1), 7, shape, channels=2).cells) == 8


def test_sizes_halve_and_channels_double_at_the_thirds():
    seen = []
    space, chain = CellSpace.darts(2, SMALL), MacroSpace.chain(6, SMALL[1:])
    network = CellSupernet(space, 3, channels=4, layers=6)
    macro = MacroSupernet(chain, 3, channels=4, inputs=3)
    for module in (*network.cells, *macro.layers):
        module.register_forward_hook(lambda _, __, y: seen.append((y.shape[1], y.shape[-1])))
    x = torch.randn(2, 3, 16, 16)
    network(x, draw_mixing(space))
    macro(x, draw_mixing(chain))
    sizes = [(4, 16), (4, 16), (8, 8), (8, 8), (16, 4), (16, 4)]
    assert seen == [(2 * c, s) for c, s in sizes] + sizes
    assert network.kinds == ["normal", "normal", "reduce", "normal", "reduce", "normal"]
    assert macro.linear.in_features == 16 * 4
    assert make_supernet(chain, 3, (1, 40)).linear.in_features == 64 * 5


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "none"])
@pytest.mark.parametrize("stride", [1, 2])
def test_all_weight_on_one_operation_gives_that_operation(name, stride):
    candidates = Candidates(Edge(0, 1, (*OPERATIONS,)), 4, stride, 2)
    alone = make_operation(name, 4, stride, affine=False)
    mixed = candidates.operations[[n for n in OPERATIONS if n != "none"].index(name)]
    if "pool" not in name:
        alone.load_state_dict(mixed.state_dict())
    x = torch.randn(3, 4, 7, 6)
    weights = [torch.tensor(float(n == name)) for n in OPERATIONS]
    expected = alone(x)
    if "pool" in name:
        expected = nn.BatchNorm2d(4, affine=False)(expected)
    torch.testing.assert_close(candidates(x, weights), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_is_the_weighted_sum_added_to_what_it_is_given(stride):
    candidates = Candidates(Edge(0, 1, DARTS_OPERATIONS), 4, stride, 2).eval()
    x, weights = torch.randn(3, 4, 6, 6), torch.rand(8)
    given = torch.randn(3, 4, 6 // stride, 6 // stride)
    values = [operation(x) for operation in candidates.operations]
    expected = given + torch.einsum("k,k...->...", weights[1:], torch.stack(values))
    result = candidates(x, weights.unbind(), given)
    torch.testing.assert_close(result, expected, rtol=1e-13, atol=1e-13)


def test_none_alone_gives_zeros_of_the_right_shape_and_is_never_a_module():
    candidates = Candidates(Edge(0, 1, ("none",)), 4, 2, 2)
    x, given = torch.randn(3, 4, 7, 6), torch.randn(3, 4, 4, 3)
    y = candidates(x, [torch.tensor(1.0)])
    assert y.shape == (3, 4, 4, 3)
    assert not y.any()
    assert candidates(x, [torch.tensor(1.0)], given) is given
    assert len(candidates.operations) == 0


def test_an_operation_taken_from_one_edge_is_neither_there_nor_computed():
    full = CellSpace.darts(2, SMALL)
    edges = list(full.parts["normal"])
    edges[3] = Edge(1, 3, ("skip_connect",))
    space = CellSpace({"normal": tuple(edges), "reduce": full.parts["reduce"]}, nodes=2)
    less = CellSupernet(space, 3, channels=2, layers=3)
    names = {name.split("operations.")[0] for name, _ in less.named_parameters()}
    assert "cells.0.edges.2." in names
    assert "cells.0.edges.3." not in names
    # It is the full network with weight zero on what was taken.
    more = CellSupernet(full, 3, channels=2, layers=3)
    shared = {k: v for k, v in more.state_dict().items() if k in less.state_dict()}
    less.load_state_dict(shared)
    mixing = draw_mixing(space)
    padded = mixing["normal"].detach().clone()
    assert padded[3, 0] == 1
    assert not padded[3, 1:].any()
    padded[3] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(less(x, mixing), more(x, {**mixing, "normal": padded}))


def test_a_cell_sums_the_edges_of_each_node():
    space, network, x = small_network()
    mixing = draw_mixing(space)
    inputs = []
    cell = network.cells[1]
    assert network.kinds[1] == "reduce"
    cell.register_forward_hook(lambda _, given, y: inputs.append((given, y)))
    network(x, mixing)
    (before_last, last, _), y = inputs[0]
    states = [cell.first(before_last), cell.second(last)]
    for node in (2, 3):
        total = 0
        for row, edge in enumerate(space.parts["reduce"]):
            for k, name in enumerate(edge.operations):
                if edge.target == node and name != "none":
                    value = cell.edges[row].operations[k - 1](states[edge.source])
                    total = total + mixing["reduce"][row, k] * value
        states.append(total)
    torch.testing.assert_close(y, torch.cat(states[2:], 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 11)], ids=str)
def test_the_order_of_the_operations_does_not_matter(shape):
    space, network, x = small_network(shape)
    order = [3, 4, 0, 2, 1]
    turned = CellSpace.darts(2, [SMALL[k] for k in order])
    other = make_supernet(turned, 3, shape, channels=2, layers=3).eval()
    states = {}
    for name, value in network.state_dict().items():
        if ".operations." in name:
            start, rest = name.split(".operations.")
            number, rest = rest.split(".", 1)
            place = [k for k in order if k > 0].index(int(number) + 1)
            states[f"{start}.operations.{place}.{rest}"] = value
        else:
            states[name] = value
    other.load_state_dict(states)
    mixing = draw_mixing(space)
    permuted = {part: each[:, order] for part, each in mixing.items()}
    torch.testing.assert_close(other(x, permuted), network(x, mixing), rtol=1e-12, atol=1e-12)


def probe(network: nn.Module, x: Tensor, mixing: dict[str, Tensor]) -> Tensor:
    return (network(x, mixing) * torch.arange(1.0, 4.0)).sin().sum()


@pytest.mark.parametrize("kind", ["cell", "chain", "sequence"])
def test_gradients_for_mixing_weights_are_those_of_central_differences(kind):
    if kind == "chain":
        space = MacroSpace.chain(3, SMALL[1:])
        network = make_supernet(space, 3, (2, 5, 6), channels=2).eval()
        x = torch.randn(4, 2, 5, 6)
    else:
        space, network, x = small_network((2, 5, 6) if kind == "cell" else (2, 11))
    mixing = {part: each.detach().requires_grad_() for part, each in draw_mixing(space).items()}
    gradients = torch.autograd.grad(probe(network, x, mixing), mixing.values())
    step = 1e-6  # so small that no ReLU and no maximum changes sides
    with torch.no_grad():
        for (part, each), gradient in zip(mixing.items(), gradients, strict=True):
            for row, column in torch.cartesian_prod(*map(torch.arange, each.shape)).tolist():
                values = []
                for sign in (1, -1):
                    moved = each.clone()
                    moved[row, column] += sign * step
                    values.append(probe(network, x, {**mixing, part: moved}))
                difference = (values[0] - values[1]) / (2 * step)
                assert abs(difference - gradient[row, column]) < 1e-7
                assert space.parts[part][row].operations[column] != "none" or difference == 0


def test_the_gradient_for_alpha_goes_through_none_by_the_softmax_only():
    space, network, x = small_network()
    architecture = Architecture(space, scale=1.0)
    mixing = {part: each.detach().requires_grad_() for part, each in architecture().items()}
    direct = torch.autograd.grad(probe(network, x, mixing), mixing["normal"])[0]
    loss = probe(network, x, architecture())
    (alpha,) = torch.autograd.grad(loss, architecture.alpha_normal)
    w = mixing["normal"].detach()
    torch.testing.assert_close(alpha, w * (direct - (w * direct).sum(1, keepdim=True)))
    assert alpha[:, 0].all()


def test_the_whole_supernet_of_darts_is_twice_differentiable_with_normalization_by_the_batch():
    space = CellSpace.darts()
    network = CellSupernet(space, 4, channels=4, layers=3)
    architecture = Architecture(space)
    x = torch.randn(4, 3, 16, 16)
    parameters = [*network.parameters()]

    def gradient(alpha: Tensor) -> tuple[Tensor, list[Tensor]]:
        mixing = {**architecture(), "normal": torch.softmax(alpha, -1)}
        loss = network(x, mixing).square().mean()
        return torch.autograd.grad(loss, parameters, create_graph=True)

    alpha = architecture.alpha_normal
    vector = [torch.randn_like(p) for p in parameters]
    along = sum((g * v).sum() for g, v in zip(gradient(alpha), vector, strict=True))
    (mixed,) = torch.autograd.grad(along, alpha)
    # The same mixed derivative by differences: no ReLU or maximum changes sides at this step.
    direction, step = torch.randn_like(alpha), 1e-7
    ends = [gradient(alpha.detach() + sign * step * direction) for sign in (1, -1)]
    expected = sum(
        ((plus - minus) * v).sum() for plus, minus, v in zip(*ends, vector, strict=True)
    ) / (2 * step)
    torch.testing.assert_close((mixed * direction).sum(), expected, rtol=1e-6, atol=1e-8)


def test_a_copy_is_a_network_of_its_own():
    space, network, x = small_network()
    other = copy.deepcopy(network)
    mixing = draw_mixing(space)
    before = network(x, mixing)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert torch.equal(network(x, mixing), before)
    assert not torch.equal(other(x, mixing), before)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CellSupernet(CellSpace.darts(), 1), ["classes", "found 1"]),
        (lambda: CellSupernet(CellSpace.darts(), 2, layers=0), ["layers", "found 0"]),
        (lambda: CellSupernet(CellSpace.darts(), 2, channels=0), ["channels", "found 0"]),
        (lambda: CellSupernet(CellSpace.darts(), 2, dimensions=3), ["dimensions", "found 3"]),
        (lambda: MacroSupernet(MacroSpace.chain(), 2, places=0), ["places", "found 0"]),
        (lambda: MacroSupernet(MacroSpace.chain(), 2, dimensions=3), ["dimensions", "found 3"]),
        (lambda: make_supernet(CellSpace.darts(), 2, (3,)), ["shape", "found (3,)"]),
        (lambda: make_supernet(CellSpace.darts(), 2, (3, 0, 8)), ["shape", "(3, 0, 8)"]),
        (lambda: make_supernet(MacroSpace.chain(4), 2, (1, 40), layers=5), ["layers", "found 5"]),
        (lambda: make_supernet(SearchSpace({}), 2, (1, 40)), ["space", "found SearchSpace"]),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(build, words):
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_mixing_weights_of_another_space_are_refused():
    space, network, x = small_network()
    other = draw_mixing(CellSpace.darts(2))
    with pytest.raises(ConfigurationError, match=r"'normal'.*\(5, 5\).*found \(5, 8\)"):
        network(x, other)
    with pytest.raises(ConfigurationError, match="'reduce'"):
        network(x, {"normal": draw_mixing(space)["normal"]})
