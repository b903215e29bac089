"""Networks against their forward passes written from the weights, and how they start."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from problems.models import (
    cifar_resnet,
    conv_classifier,
    resnet_classifier,
    resnet_encoder,
    sequence_classifier,
    sequence_encoder,
    vgg19_bn,
    wide_resnet,
)

from . import recomputed
from .recomputed import Weights, narrow, scrambled

CASES = {
    "resnet32": (lambda: cifar_resnet(32, 10), recomputed.cifar_resnet, {"depth": 32}),
    "resnet8, B": (lambda: cifar_resnet(8, 5, shortcut="B"), recomputed.cifar_resnet, {"depth": 8}),
    "wrn-10-2": (lambda: wide_resnet(10, 2, classes=3), recomputed.wide_resnet, {"depth": 10}),
    "wrn-16-1": (lambda: wide_resnet(16, 1, classes=3), recomputed.wide_resnet, {"depth": 16}),
    "resnet18": (lambda: resnet_encoder(18), recomputed.resnet, {"depth": 18}),
    "resnet18, cifar": (
        lambda: resnet_encoder(18, stem="cifar", channels=1),
        recomputed.resnet,
        {"depth": 18, "stem": "cifar"},
    ),
    "resnet50": (lambda: resnet_encoder(50), recomputed.resnet, {"depth": 50}),
    "vgg19-bn": (lambda: vgg19_bn(4, grid=1, dropout=0.0), recomputed.vgg, {"grid": 1}),
}


@functools.cache  # tests share a network, whose running statistics do not matter to them
def network(name):
    torch.manual_seed(3)
    with narrow():
        return scrambled(CASES[name][0]())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_network_is_what_its_formula_says(name, training):
    _, formula, options = CASES[name]
    module = network(name).train(training)
    channels = next(module.parameters()).shape[1]
    x = torch.randn(5, channels, 32, 32, generator=torch.Generator().manual_seed(5))
    weights = Weights(module)
    with torch.no_grad():
        found, expected = module(x), formula(weights, x, **options)
    assert weights.all_used()
    assert expected.std() > 1e-4
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_classifier_is_its_encoder_and_a_linear_layer():
    with narrow():
        module = resnet_classifier(18, 4).eval()
    weights = Weights(module)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = weights.linear("fc", recomputed.resnet(weights, x, 18))
        assert (module(x) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert weights.all_used()


def test_a_large_grid_only_repeats_what_a_small_image_gives():
    with narrow():
        pool = vgg19_bn(2, grid=7).avgpool
    few = torch.randn(1, 3, 1, 1)
    assert torch.equal(pool(few), few.expand(1, 3, 7, 7))


@pytest.mark.parametrize("features", [None, 7])
def test_the_network_of_sequences_is_what_its_formula_says(features):
    module = sequence_classifier(4, channels=2, width=3, features=features)
    s = {name: part for name, part in module.state_dict().items()}
    x = torch.randn(5, 2, 40)
    y = x
    for layer in (0, 2, 4):
        y = F.conv1d(y, s[f"{layer}.weight"], s[f"{layer}.bias"], stride=2, padding=1).relu()
    assert y.shape == (5, 3, 5)  # at the length of MNIST-1D nothing is averaged
    y = y.reshape(5, 15)
    if features:
        y = (y @ s["8.weight"].T + s["8.bias"]).relu()
    last = "10" if features else "8"
    expected = y @ s[f"{last}.weight"].T + s[f"{last}.bias"]
    assert (module(x) - expected).abs().max() <= 1e-12
    assert (module[:-1](x) == y).all()


def test_the_network_of_sequences_may_normalize_and_then_has_no_bias():
    torch.manual_seed(1)
    module = sequence_encoder(width=3, batch_norm=True)
    assert [type(layer).__name__ for layer in module[:3]] == ["Conv1d", "BatchNorm1d", "ReLU"]
    assert module[0].bias is None
    x = torch.randn(6, 1, 40)
    y = module[:2](x)
    assert y.mean((0, 2)).abs().max() < 1e-12
    assert (y.var((0, 2), correction=0) - 1).abs().max() < 1e-2


def test_the_small_networks_start_where_these_layers_start():
    torch.manual_seed(11)
    found = conv_classifier(3, channels=2, width=4, features=5)
    torch.manual_seed(11)
    layers = (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 8, 3), nn.Linear(128, 5), nn.Linear(5, 3))
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    assert all(map(torch.equal, found.parameters(), expected))


STARTS = {
    "resnet32": (lambda: cifar_resnet(32, 10), "layer2.0.conv1.weight", 2 / (9 * 16)),
    "resnet32, last": (lambda: cifar_resnet(32, 200), "linear.weight", 2 / 64),
    "wrn": (lambda: wide_resnet(10, 1, classes=2), "group2.0.conv1.weight", 2 / (9 * 32)),
    "wrn, shortcut": (lambda: wide_resnet(10, 4, classes=2), "group2.0.shortcut.weight", 2 / 128),
    "resnet18": (lambda: network("resnet18"), "layer4.0.conv1.weight", 2 / (9 * 64)),
    "resnet50": (lambda: network("resnet50"), "layer4.0.conv3.weight", 2 / 256),
    "vgg": (lambda: network("vgg19-bn"), "features.27.weight", 2 / (9 * 64)),
    "vgg, linear": (lambda: network("vgg19-bn"), "classifier.0.weight", 1e-4),
}


@pytest.mark.parametrize("name", STARTS)
def test_weights_start_normal_with_the_variance_of_the_published_codes(name):
    make, weight, variance = STARTS[name]
    values = make().state_dict()[weight].flatten()
    assert len(values) > 4000
    assert (values.var() / variance - 1).abs() < 0.1
    # A uniform distribution of this variance has kurtosis 1.8 and a normal one 3.
    assert 2.7 < (values**4).mean() / variance**2 < 3.4


def test_biases_start_at_zero_where_the_published_codes_have_them_so():
    assert wide_resnet(10, 1, classes=5).fc.bias.abs().sum() == 0
    with narrow():
        state = vgg19_bn(2, grid=1).state_dict()
    biases = [part for name, part in state.items() if name.endswith(".bias")]
    assert len(biases) == 35
    assert all(bias.abs().sum() == 0 for bias in biases)
