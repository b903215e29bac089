"""The networks of genotypes: published sizes, shapes that they take, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlo.errors import ConfigurationError
from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.networks import (
    AuxiliaryHead,
    CifarNetwork,
    ImageNetNetwork,
    MacroNetwork,
    make_network,
)
from problems.nas.published import DARTS_V2, P_DARTS, PC_DARTS, PC_DARTS_IMAGENET, PUBLISHED
from problems.nas.space import CellSpace, MacroSpace

CHAIN = MacroGenotype(layers=("conv_3x3", "skip_connect", "max_pool_3x3", "sep_conv_3x3"))


def parameters(network: nn.Module) -> int:
    return sum(
        p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary")
    )


def test_the_networks_of_darts_have_the_number_of_parameters_that_its_code_prints():
    with torch.device("meta"):
        assert parameters(CifarNetwork(DARTS_V2, 10)) == 3_349_342
        assert parameters(ImageNetNetwork(DARTS_V2)) == 4_718_752


@pytest.mark.parametrize(
    ("genotype", "stem", "millions"),
    [
        (P_DARTS, "cifar", 3.4),
        (PC_DARTS, "cifar", 3.6),
        (P_DARTS, "imagenet", 4.9),
        (PC_DARTS_IMAGENET, "imagenet", 5.3),
    ],
)
def test_networks_of_others_have_the_sizes_of_their_papers(genotype, stem, millions):
    classes, side, channels = {"cifar": (10, 32, 36), "imagenet": (1000, 224, 48)}[stem]
    with torch.device("meta"):
        network = make_network(
            genotype, classes, (3, side, side), channels=channels, auxiliary=True, stem=stem
        )
    assert round(parameters(network) / 1e6, 1) == millions


@pytest.mark.parametrize(("stem", "features"), [("cifar", 2 * 768), ("imagenet", 0)])
def test_only_the_parameters_of_the_auxiliary_head_have_names_that_begin_so(stem, features):
    with torch.device("meta"):
        with_head, without = (
            make_network(
                DARTS_V2, 7, (3, 224, 224), channels=4, layers=3, auxiliary=auxiliary, stem=stem
            )
            for auxiliary in (True, False)
        )
    assert parameters(with_head) == parameters(without)
    head = sum(p.numel() for p in with_head.parameters()) - parameters(with_head)
    branch = 4 * 4 * 4  # four nodes of four times the channels
    expected = branch * 128 + 2 * 128 + 128 * 768 * 4 + features + 768 * 7 + 7
    assert head == expected
    assert with_head.auxiliary.linear.in_features == 768


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 40), (3, 7, 9), (2, 11), (1, 4, 4)], ids=str)
def test_genotypes_of_both_spaces_take_images_and_sequences(shape):
    x = torch.randn(4, *shape)
    cells = CellSpace.darts(3).random_genotype(torch.Generator().manual_seed(1))
    chain = MacroSpace.chain(6).random_genotype(torch.Generator().manual_seed(1))
    for network in (
        make_network(cells, 7, shape, channels=2, layers=5),
        make_network(chain, 7, shape, channels=2),
        make_network(CHAIN, 7, shape, channels=2, layers=4),
    ):
        logits, auxiliary = network.with_auxiliary(x)
        assert network(x).shape == logits.shape == (4, 7)
        assert auxiliary is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_genotype_has_a_network(name):
    network = make_network(PUBLISHED[name], 3, (3, 8, 8), channels=2, layers=3)
    assert network(torch.randn(2, 3, 8, 8), 0.2).shape == (2, 3)


def test_numbers_of_layers_that_are_not_given_are_those_of_the_papers():
    with torch.device("meta"):
        assert len(make_network(DARTS_V2, 2, (3, 32, 32), channels=2).cells) == 20
        network = make_network(DARTS_V2, 2, (3, 64, 64), channels=2, stem="imagenet")
    assert len(network.cells) == 14


@pytest.mark.parametrize(("stem", "least"), [("cifar", 29), ("imagenet", 193)])
def test_the_smallest_inputs_of_an_auxiliary_head_are_those_that_it_takes(stem, least):
    options = {"channels": 2, "layers": 3, "stem": stem}
    network = make_network(DARTS_V2, 3, (3, least, least), auxiliary=True, **options)
    x = torch.randn(2, 3, least, least)
    assert network.with_auxiliary(x)[1].shape == (2, 3)
    with pytest.raises(ConfigurationError, match=f"at least {least} places.*auxiliary=False"):
        make_network(DARTS_V2, 3, (3, least, least - 1), auxiliary=True, **options)
    with pytest.raises(ConfigurationError, match=r"auxiliary: expected a map.*auxiliary=False"):
        network.with_auxiliary(x[..., :-1])
    assert network(x[..., :-1]).shape == (2, 3)


def test_larger_maps_than_those_of_the_papers_are_averaged_behind_the_head():
    head, x = AuxiliaryHead(3, 4).eval(), torch.randn(2, 3, 11, 8)
    features = head.features(x)
    assert features.shape == (2, 768, 2, 1)
    expected = (head.linear(features[:, :, 0, 0]) + head.linear(features[:, :, 1, 0])) / 2
    torch.testing.assert_close(head(x), expected, rtol=1e-12, atol=1e-12)


def test_the_smallest_inputs_are_those_that_leave_one_place():
    for genotype, stem, least in ((DARTS_V2, "cifar", 4), (DARTS_V2, "imagenet", 32)):
        options = {"channels": 2, "layers": 3, "stem": stem}
        network = make_network(genotype, 3, (3, least, least), **options)
        assert network.eval()(torch.randn(2, 3, least, least)).shape == (2, 3)
        with pytest.raises(ConfigurationError, match=f"at least {least} places.*larger"):
            make_network(genotype, 3, (3, least - 1, least), **options)
    short = MacroGenotype(layers=("conv_3x3",))
    assert make_network(short, 3, (1, 2), channels=2)(torch.randn(2, 1, 2)).shape == (2, 3)
    with pytest.raises(ConfigurationError, match=r"at least 2 places.*1 layers.*1 times"):
        make_network(short, 3, (1, 1), channels=2)


def network_of(genotype=DARTS_V2, classes=3, shape=(3, 32, 32), **options) -> nn.Module:
    return make_network(genotype, classes, shape, **{"channels": 2, **options})


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: network_of(layers=2), ["genotype", "at least 3", "found 2", "more layers"]),
        (lambda: network_of(CHAIN, layers=5), ["genotype", "be 4", "found 5", "Leave"]),
        (lambda: network_of(CHAIN, stem="imagenet"), ["genotype", "'cifar'", "found 'imagenet'"]),
        (lambda: network_of(CHAIN, auxiliary=True), ["genotype", "False", "found True", "off"]),
        (lambda: network_of("darts-v2"), ["genotype", "found str", "Give"]),
        (
            lambda: network_of(shape=(1, 40), stem="imagenet"),
            ["genotype", "images", "found shape (1, 40)", "'cifar' for sequences"],
        ),
        (
            lambda: network_of(shape=(3, 31, 64), stem="imagenet"),
            ["genotype", "at least 32", "(3, 31, 64)", "or use the stem 'cifar'"],
        ),
        (lambda: network_of(shape=(3,)), ["shape", "found (3,)"]),
        (lambda: network_of(stem="mnist"), ["stem", "found 'mnist'"]),
        (lambda: network_of(classes=1), ["classes", "found 1"]),
        (lambda: network_of(channels=0), ["channels", "found 0"]),
        (lambda: network_of(CHAIN, channels=0), ["channels", "found 0"]),
        (lambda: network_of(channels=1, stem="imagenet"), ["channels", "at least 2", "found 1"]),
        (lambda: CifarNetwork(CHAIN, 3), ["genotype", "found MacroGenotype", "MacroNetwork"]),
        (lambda: CifarNetwork(DARTS_V2, 3, dimensions=3), ["dimensions", "found 3"]),
        (lambda: MacroNetwork(DARTS_V2, 3), ["genotype", "found Genotype", "CifarNetwork"]),
        (lambda: MacroNetwork(CHAIN, 3, places=0), ["places", "found 0"]),
        (lambda: MacroNetwork(CHAIN, 3, dimensions=3), ["dimensions", "found 3"]),
        (lambda: ImageNetNetwork(DARTS_V2, layers=1), ["genotype", "at least 3", "found 1"]),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(build, words):
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("p", [0.1, -0.1, 1.0])
def test_a_chain_drops_no_layer(p):
    network = MacroNetwork(CHAIN, 3)
    x = torch.randn(2, 1, 8, 8)
    for call in (network, network.with_auxiliary):
        with pytest.raises(ConfigurationError, match="drop_path: expected 0 for a chain"):
            call(x, p)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_cells_refuse_what_is_no_probability(p):
    network, x = network_of(layers=3), torch.randn(2, 3, 8, 8)
    for call in (network, network.with_auxiliary):
        with pytest.raises(ConfigurationError, match="drop_path: expected a probability"):
            call(x, p)


def test_the_number_of_nodes_in_the_output_may_differ_between_the_cells():
    some = {"operation": "conv_1x1", "input": 0}, {"operation": "skip_connect", "input": 1}
    genotype = Genotype.of(
        normal={"nodes": [some, some], "concat": [3]},
        reduce={"nodes": [some, some], "concat": [2, 3]},
    )
    network = network_of(genotype, layers=4)
    assert network.linear.in_features == 8
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 3)
