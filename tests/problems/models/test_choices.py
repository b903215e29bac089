"""Networks by name: what fits is built, and what does not is refused by name."""

from __future__ import annotations

import pytest
import torch

from mlo.errors import ConfigurationError
from problems import models
from problems.models import CLASSIFIERS, ENCODERS, make_classifier, make_encoder

from .recomputed import narrow, without_memory

IMAGES = {
    "small": [(1, 8, 8), (3, 32, 32), (3, 17, 40), (1, 40), (2, 35)],
    "resnet32": [(3, 32, 32), (1, 28, 28)],
    "vgg19-bn": [(3, 32, 32), (3, 64, 64), (1, 224, 224)],
    "resnet18": [(3, 32, 32), (1, 8, 8), (3, 224, 224)],
    "resnet34": [(3, 64, 64)],
    "resnet50": [(3, 224, 224)],
    "resnet101": [(3, 32, 32)],
}
# An eighth of those of the whole networks, but for the small ones.
FEATURES = {"small": None, "resnet18": 64, "resnet34": 64, "resnet50": 256, "resnet101": 256}
PAIRS = [(name, shape) for name, shapes in IMAGES.items() for shape in shapes]


def test_the_names_are_those_of_the_published_settings():
    assert set(CLASSIFIERS) == {*IMAGES, "wrn-28-10"}
    assert set(ENCODERS) == set(FEATURES)


@pytest.mark.parametrize(("name", "shape"), PAIRS)
def test_every_classifier_takes_its_inputs_and_gives_logits(name, shape):
    with narrow():
        module = make_classifier(name, 7, shape).eval()
    with torch.no_grad():
        assert module(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(("name", "shape"), [pair for pair in PAIRS if pair[0] in FEATURES])
def test_every_encoder_takes_its_inputs_and_gives_features(name, shape):
    with narrow():
        module = make_encoder(name, shape).eval()
    with torch.no_grad():
        found = module(torch.randn(2, *shape))
    assert found.shape == (2, FEATURES[name] or (64 if len(shape) == 3 else 125))
    assert found.min() >= 0


def test_the_wide_network_is_the_published_one():
    with without_memory():
        found = make_classifier("wrn-28-10", 7, (1, 32, 32))
        assert str(found) == str(models.wide_resnet(28, 10, classes=7, channels=1))


def test_a_name_stands_for_the_same_network_with_the_same_start():
    small = {"width": 4, "features": 6, "batch_norm": True}
    for by_name, by_hand in (
        (
            lambda: make_classifier("small", 3, (2, 9, 9), **small),
            lambda: models.conv_classifier(3, channels=2, **small),
        ),
        (
            lambda: make_classifier("small", 3, (2, 40), **small),
            lambda: models.sequence_classifier(3, channels=2, **small),
        ),
        (lambda: make_encoder("small", (1, 9, 9)), models.conv_encoder),
        (lambda: make_encoder("small", (1, 40), **small), lambda: models.sequence_encoder(**small)),
        (lambda: make_classifier("resnet32", 3, (3, 32, 32)), lambda: models.cifar_resnet(32, 3)),
        (
            lambda: make_encoder("resnet18", (1, 32, 32), stem="cifar"),
            lambda: models.resnet_encoder(18, stem="cifar", channels=1),
        ),
    ):
        with narrow():
            torch.manual_seed(4)
            one = by_name()
            torch.manual_seed(4)
            other = by_hand()
        assert str(one) == str(other)
        assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize(("side", "grid"), [(32, 1), (63, 1), (64, 2), (224, 7), (512, 7)])
def test_the_grid_of_vgg_is_what_the_images_give(side, grid):
    with without_memory():
        found = make_classifier("vgg19-bn", 2, (3, side, side + 32))
        assert found.avgpool.output_size == grid
        assert make_classifier("vgg19-bn", 2, (3, side, side), grid=3).avgpool.output_size == 3


def test_options_reach_the_network():
    with without_memory():
        wide = make_classifier("wrn-28-10", 2, (3, 32, 32), dropout=0.3)
        vgg = make_classifier("vgg19-bn", 2, (3, 32, 32), dropout=0.1)
        resnet = make_classifier("resnet50", 2, (3, 32, 32), stem="cifar")
    assert wide.group2[1].dropout.p == 0.3
    assert vgg.classifier[5].p == 0.1
    assert resnet.conv1.kernel_size == (3, 3)
    assert "fc" in dict(resnet.named_children())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_classifier("resnet-32", 2, (3, 32, 32)),
            "classifier: expected one of 'small', 'resnet32', .* found 'resnet-32'; did you mean "
            "'resnet32'",
        ),
        (lambda: make_encoder("resnet32", (3, 32, 32)), "encoder: .*; did you mean 'resnet34'"),
        (
            lambda: make_classifier("resnet32", 2, (3, 32, 32), width=4),
            "classifier 'resnet32': expected options among none, found 'width'",
        ),
        (lambda: make_classifier("vgg19-bn", 2, (3, 32, 32), features=4), "found 'features'"),
        (lambda: make_encoder("resnet18", (3, 32, 32), batch_norm=True), "found 'batch_norm'"),
        (lambda: make_encoder("small", (3, 32, 32), widht=1), "did you mean 'width'"),
        (lambda: make_encoder("small", (3, 32, 32), classes=1), "found 'classes'"),
        (lambda: make_classifier("small", 1, (3, 32, 32)), "classes: "),
        (lambda: make_classifier("small", 2, (3, 32, 32), width=0), "width: "),
        (lambda: make_classifier("small", 2, (3, 7, 32)), r"at least 8 x 8 .* \(3, 7, 32\)"),
        (lambda: make_classifier("small", 2, (1, 34)), r"at least 35 numbers, found \(1, 34\)"),
        (lambda: make_encoder("small", (0, 40)), r"sequences .* found \(0, 40\)"),
        (lambda: make_encoder("small", (64,)), r"shape: expected images .* found \(64,\)"),
        (lambda: make_classifier("resnet32", 2, (1, 40)), r"shape: expected images .* \(1, 40\)"),
        (lambda: make_classifier("wrn-28-10", 2, (0, 8, 8)), r"shape: .* \(0, 8, 8\)"),
        (lambda: make_classifier("vgg19-bn", 2, (3, 31, 64)), "at least 32 x 32 pixels"),
        (lambda: make_encoder("resnet18", (3, 32, 32), stem="x"), "stem: "),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
