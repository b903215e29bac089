"""Numbers of parameters, names and shapes, by arithmetic and rules of their own."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from mlo.errors import ConfigurationError
from problems.models import (
    cifar_resnet,
    conv_encoder,
    resnet_classifier,
    resnet_encoder,
    sequence_classifier,
    sequence_encoder,
    vgg19_bn,
    wide_resnet,
)

from .recomputed import BLOCKS, narrow, without_memory

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def shaped(make, *args, **options):
    with without_memory():
        return make(*args, **options)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolution(kernel, inputs, outputs):
    """With batch normalization and without a bias."""
    return kernel**2 * inputs * outputs + 2 * outputs


@pytest.mark.parametrize(("classes", "known"), [(10, 464_154), (100, 470_004)])
def test_resnet_32_has_as_many_parameters_as_its_layers(classes, known):
    n = 5
    expected = convolution(3, 3, 16) + 64 * classes + classes
    expected += 2 * n * convolution(3, 16, 16)
    expected += convolution(3, 16, 32) + (2 * n - 1) * convolution(3, 32, 32)
    expected += convolution(3, 32, 64) + (2 * n - 1) * convolution(3, 64, 64)
    assert parameters(shaped(cifar_resnet, 32, classes)) == expected == known
    projected = expected + convolution(1, 16, 32) + convolution(1, 32, 64)
    assert parameters(shaped(cifar_resnet, 32, classes, shortcut="B")) == projected


@pytest.mark.parametrize(
    ("depth", "widen", "classes", "known"),
    [(28, 10, 10, 36_479_194), (28, 10, 100, 36_536_884), (16, 1, 10, None)],
)
def test_wide_networks_have_as_many_parameters_as_their_layers(depth, widen, classes, known):
    blocks = (depth - 4) // 6
    expected, inputs = 27 * 16, 16
    for outputs in (16 * widen, 32 * widen, 64 * widen):
        for block in range(blocks):
            before = outputs if block else inputs
            expected += 2 * before + 9 * before * outputs + 2 * outputs + 9 * outputs**2
            expected += before * outputs if before != outputs else 0
        inputs = outputs
    expected += 2 * inputs + inputs * classes + classes
    found = parameters(shaped(wide_resnet, depth, widen, classes=classes))
    assert found == expected == (known or found)


@pytest.mark.parametrize(
    ("grid", "classes", "known"), [(7, 1000, 143_678_248), (2, 10, 45_250_378)]
)
def test_vgg_has_as_many_parameters_as_its_layers(grid, classes, known):
    widths = [3, *[64] * 2, *[128] * 2, *[256] * 4, *[512] * 8]
    layers = itertools.pairwise(widths)
    expected = sum(convolution(3, *layer) + layer[1] for layer in layers)
    expected += (512 * grid**2 + 1) * 4096 + 4097 * 4096 + 4097 * classes
    assert parameters(shaped(vgg19_bn, classes, grid=grid)) == expected == known


RESNETS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


@pytest.mark.parametrize("depth", RESNETS)
def test_resnets_have_as_many_parameters_as_their_layers(depth):
    factor = 4 if depth >= 50 else 1
    expected, inputs = convolution(7, 3, 64), 64
    for width, blocks in zip((64, 128, 256, 512), BLOCKS[depth], strict=True):
        for block in range(blocks):
            if factor == 1:
                expected += convolution(3, inputs, width) + convolution(3, width, width)
            else:
                expected += convolution(1, inputs, width) + convolution(3, width, width)
                expected += convolution(1, width, 4 * width)
            if block == 0 and (width > 64 or factor > 1):
                expected += convolution(1, inputs, factor * width)
            inputs = factor * width
    assert parameters(shaped(resnet_encoder, depth)) == expected == RESNETS[depth]
    fc = inputs * 1000 + 1000
    assert parameters(shaped(resnet_classifier, depth, 1000)) == expected + fc
    smaller = expected - 49 * 3 * 64 + 9 * 3 * 64
    assert parameters(shaped(resnet_encoder, depth, stem="cifar")) == smaller


def test_the_network_of_sequences_is_as_large_as_the_published_one():
    layers = [5 * 25 + 25, 3 * 25 * 25 + 25, 3 * 25 * 25 + 25, 125 * 10 + 10]
    assert parameters(sequence_classifier(10)) == sum(layers) == 5210


@pytest.mark.parametrize("depth", RESNETS)
def test_resnets_have_the_names_and_shapes_that_weights_files_have(depth):
    deep, expected = depth >= 50, ["conv1.weight", *(f"bn1.{part}" for part in NORM)]
    for layer, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(blocks):
            place = f"layer{layer}.{block}."
            for index in (1, 2, 3) if deep else (1, 2):
                expected.append(f"{place}conv{index}.weight")
                expected += [f"{place}bn{index}.{part}" for part in NORM]
            if block == 0 and (layer > 1 or deep):
                expected.append(f"{place}downsample.0.weight")
                expected += [f"{place}downsample.1.{part}" for part in NORM]
    module = shaped(resnet_classifier, depth, 1000)
    state = module.state_dict()
    assert list(state) == [*expected, "fc.weight", "fc.bias"]
    assert list(shaped(resnet_encoder, depth).state_dict()) == expected
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer4.0.downsample.0.weight"].shape[:2] == ((2048, 1024) if deep else (512, 256))
    strided = module.layer2[0].conv2 if deep else module.layer2[0].conv1
    assert strided.stride == (2, 2)  # where torchvision has it


def test_vgg_has_the_names_that_weights_files_have():
    expected, index = [], 0
    for convolutions in (2, 2, 4, 4, 4):
        for _ in range(convolutions):
            expected += [f"features.{index}.weight", f"features.{index}.bias"]
            expected += [f"features.{index + 1}.{part}" for part in NORM]
            index += 3
        index += 1
    expected += [f"classifier.{layer}.{part}" for layer in (0, 3, 6) for part in NORM[:2]]
    state = shaped(vgg19_bn, 1000).state_dict()
    assert list(state) == expected
    assert state["classifier.0.weight"].shape == (4096, 25088)


def places(make, layer, side, **options):
    """The shapes of a layer's result and of the network's."""
    with narrow():
        module = make(**options).float().eval()
    seen = []
    module.get_submodule(layer).register_forward_hook(lambda *a: seen.append(tuple(a[-1].shape)))
    with torch.no_grad():
        last = module(torch.randn(1, 3, side, side).float())
    return [*seen, tuple(last.shape)]


@pytest.mark.parametrize(
    ("make", "layer", "side", "options", "shapes"),
    [
        (cifar_resnet, "layer3", 32, {"depth": 32, "classes": 7}, [(64, 8, 8), (7,)]),
        (cifar_resnet, "layer3", 33, {"depth": 8, "classes": 7}, [(64, 9, 9), (7,)]),
        (wide_resnet, "group1", 32, {"widen": 2, "classes": 7}, [(32, 32, 32), (7,)]),
        (wide_resnet, "group3", 32, {"widen": 2, "classes": 7}, [(128, 8, 8), (7,)]),
        (wide_resnet, "group3", 64, {"widen": 1, "classes": 7}, [(64, 16, 16), (7,)]),
        (vgg19_bn, "features", 32, {"classes": 7}, [(64, 1, 1), (7,)]),
        (vgg19_bn, "features", 64, {"classes": 7, "grid": 2}, [(64, 2, 2), (7,)]),
        (vgg19_bn, "features", 224, {"classes": 7}, [(64, 7, 7), (7,)]),
        (resnet_encoder, "layer4", 32, {"depth": 18}, [(64, 1, 1), (64,)]),
        (resnet_encoder, "layer4", 32, {"depth": 18, "stem": "cifar"}, [(64, 4, 4), (64,)]),
        (resnet_encoder, "layer4", 64, {"depth": 34}, [(64, 2, 2), (64,)]),
        (resnet_encoder, "layer4", 224, {"depth": 50}, [(256, 7, 7), (256,)]),
        (resnet_encoder, "layer4", 224, {"depth": 101}, [(256, 7, 7), (256,)]),
    ],
)
def test_feature_maps_have_the_places_that_strides_leave(make, layer, side, options, shapes):
    assert places(make, layer, side, **options) == [(1, *shape) for shape in shapes]


def test_features_of_whole_images_are_finite_and_not_negative():
    with torch.no_grad():
        features = resnet_encoder(18).float().eval()(torch.randn(1, 3, 224, 224).float())
    assert features.shape == (1, 512)
    assert features.isfinite().all()
    assert features.min() >= 0
    assert features.max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cifar_resnet(30, 10), r"depth: expected 6n \+ 2 .* found 30"),
        (lambda: cifar_resnet(2, 10), "depth: .* found 2"),
        (lambda: cifar_resnet(8, 1), "classes: expected at least 2, found 1"),
        (lambda: cifar_resnet(8, 2, shortcut="C"), "shortcut: expected one of 'A', 'B', found 'C'"),
        (lambda: wide_resnet(26, 1, classes=2), r"depth: expected 6n \+ 4 .* found 26"),
        (lambda: wide_resnet(4, 1, classes=2), "depth: .* found 4"),
        (lambda: wide_resnet(10, 0, classes=2), "widen: expected at least 1, found 0"),
        (lambda: wide_resnet(10, 1, classes=2, dropout=1.0), r"dropout: .*\[0, 1\), found 1.0"),
        (lambda: wide_resnet(10, 1, classes=0), "classes: "),
        (lambda: vgg19_bn(1), "classes: "),
        (lambda: vgg19_bn(2, grid=0), "grid: expected at least 1, found 0"),
        (lambda: vgg19_bn(2, dropout=-0.1), "dropout: .* found -0.1"),
        (lambda: resnet_encoder(19), "depth: expected one of 18, 34, 50, 101, found 19"),
        (lambda: resnet_encoder(18, stem="large"), "stem: expected one of 'imagenet', 'cifar'"),
        (lambda: resnet_encoder(18, channels=0), "channels: "),
        (lambda: resnet_classifier(18, 1), "classes: "),
        (lambda: sequence_encoder(width=0), "width: "),
        (lambda: sequence_encoder(features=0), "features: expected at least 1, found 0"),
        (lambda: sequence_classifier(1), "classes: "),
        (lambda: conv_encoder(channels=0), "channels: expected at least 1, found 0"),
    ],
)
def test_sizes_that_no_network_has_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_every_weight_belongs_to_a_standard_module_and_none_works_in_place():
    for module in (
        shaped(cifar_resnet, 8, 2),
        shaped(wide_resnet, 10, 1, classes=2),
        shaped(vgg19_bn, 2, grid=1),
        shaped(resnet_classifier, 18, 2),
        shaped(resnet_classifier, 50, 2),
        sequence_classifier(2),
    ):
        for part in module.modules():
            assert not getattr(part, "inplace", False)
            if [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
                assert type(part).__module__.startswith("torch.nn.modules")


def test_dropout_is_where_it_was_asked_for():
    wide = shaped(wide_resnet, 10, 1, classes=2, dropout=0.3)
    vgg = shaped(vgg19_bn, 2, dropout=0.2)
    for module, expected in ((wide, [0.3] * 3), (vgg, [0.2] * 2)):
        assert [m.p for m in module.modules() if isinstance(m, nn.Dropout)] == expected
    x, block = torch.randn(2, 16, 8, 8), wide_resnet(10, 1, classes=2, dropout=0.5).group1[0]
    assert not torch.equal(block(x), block(x))
    assert torch.equal(block.eval()(x), block(x))
