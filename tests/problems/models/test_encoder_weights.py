"""Weights of classifiers load into encoders: all fits or nothing moves."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from mlo.errors import DataError
from problems.models import load_encoder_weights, resnet_classifier, resnet_encoder

from ...bombs import by_exec, torch_file
from .recomputed import narrow, scrambled, without_memory


@pytest.fixture(autouse=True)
def small_networks():
    with narrow():
        yield


@pytest.fixture
def encoder():
    return resnet_encoder(18).float()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def state_of(module):
    return {name: part.clone() for name, part in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state_of_file(classes=1000, depth=18, **options):
    """What a file holds: each part has numbers of its own, in single precision."""
    with without_memory():
        state = resnet_classifier(depth, classes, **options).float().state_dict()
    return {
        name: (torch.arange(part.numel()) % 89 + index).to(part.dtype).reshape(part.shape)
        for index, (name, part) in enumerate(state.items())
    }


def test_an_encoder_takes_all_of_a_classifier_but_its_last_layer(path):
    torch.manual_seed(9)
    classifier = scrambled(resnet_classifier(18, 7)).float()
    with torch.no_grad():
        classifier(torch.randn(2, 3, 32, 32).float())  # counters that are not those of the start
    torch.save(classifier.state_dict(), path)
    target = resnet_encoder(18).float()
    places = [part.data_ptr() for part in target.parameters()]
    assert load_encoder_weights(target, path) is None
    expected = state_of(classifier)
    del expected["fc.weight"], expected["fc.bias"]
    assert same(state_of(target), expected)
    assert target.bn1.num_batches_tracked == 1
    assert places == [part.data_ptr() for part in target.parameters()]
    x = torch.randn(2, 3, 32, 32).float()
    classifier.eval(), target.eval()
    with torch.no_grad():
        assert torch.equal(classifier.fc(target(x)), classifier(x))


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("wrapped", [False, True])
def test_files_of_encoders_load_too(path, wrapped, depth):
    state = state_of_file(depth=depth)
    del state["fc.weight"], state["fc.bias"]
    torch.save({"state_dict": state} if wrapped else state, path)
    target = resnet_encoder(depth).float()
    load_encoder_weights(target, path)
    assert same(state_of(target), state)


def test_old_files_have_parameters_and_no_counters(path):
    state = OrderedDict(
        (name, nn.Parameter(part) if name.endswith(("weight", "bias")) else part)
        for name, part in state_of_file().items()
        if not name.endswith("num_batches_tracked")
    )
    path.write_bytes(torch_file(state, zipped=False))
    target = resnet_encoder(18).float()
    load_encoder_weights(target, path)
    for name, part in target.state_dict().items():
        counter = name.endswith("num_batches_tracked")
        assert torch.equal(part, torch.tensor(0) if counter else state[name])


def without(*beginnings):
    return lambda: {n: p for n, p in state_of_file().items() if not n.startswith(beginnings)}


UNFIT = {
    "no layer4": (without("layer4"), "missing: 'layer4.0.conv1.weight'.* and 0 others: none"),
    "one weight less": (without("layer2.1.bn2.weight"), "1 missing: 'layer2.1.bn2.weight'"),
    "no mean": (without("bn1.running_mean"), "1 missing: 'bn1.running_mean'"),
    "one more": (
        lambda: {**state_of_file(), "head.weight": torch.ones(2)},
        "0 missing: none, and 1 others: 'head.weight'",
    ),
    "more of the last layer": (
        lambda: {**state_of_file(), "fc.0.weight": torch.ones(2)},
        "1 others: 'fc.0.weight'",
    ),
    "only the last layer": (
        lambda: {"fc.weight": torch.ones(2, 64), "fc.bias": torch.ones(2)},
        "missing: 'conv1.weight'",
    ),
    "names inside another": (
        lambda: {f"module.{name}": part for name, part in state_of_file().items()},
        "others: 'module.conv1.weight'",
    ),
    "a shape": (
        lambda: {**state_of_file(), "layer1.0.conv1.weight": torch.ones(8, 8, 1, 1).float()},
        r"layer1\.0\.conv1\.weight: expected float32 \[8, 8, 3, 3\], found float32 \[8, 8, 1, 1\]",
    ),
    "a counter of a kind": (
        lambda: {**state_of_file(), "bn1.num_batches_tracked": torch.ones(())},
        r"bn1\.num_batches_tracked: expected int64",
    ),
    "another depth": (lambda: state_of_file(depth=34), "others: 'layer1.2.conv1.weight'"),
    "another stem": (
        lambda: state_of_file(stem="cifar"),
        r"conv1\.weight: expected .* 7, 7\], found",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_does_not_fit_is_named_and_nothing_moves(path, encoder, what):
    make, message = UNFIT[what]
    torch.save(make(), path)
    before = state_of(encoder)
    with pytest.raises(DataError, match=message):
        load_encoder_weights(encoder, path)
    assert same(state_of(encoder), before)


def test_a_file_with_code_is_refused_and_the_code_not_run(tmp_path, path, encoder):
    mark, before = tmp_path / "mark", state_of(encoder)
    path.write_bytes(torch_file({**state_of_file(), "fc.weight": by_exec(mark)}))
    with pytest.raises(DataError, match="asks for exec, which is not executed"):
        load_encoder_weights(encoder, path)
    assert not mark.exists()
    with pytest.raises(DataError, match="no file that can be read"):
        load_encoder_weights(encoder, tmp_path / "absent.pt")
    assert same(state_of(encoder), before)
