"""Second derivatives of the networks exist, and are differences of first derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from problems.models import (
    cifar_resnet,
    conv_classifier,
    resnet_encoder,
    sequence_classifier,
    vgg19_bn,
    wide_resnet,
)

from .recomputed import narrow, scrambled

STEP = 1e-7
"""Of the central differences: so small that no ReLU changes sides."""

CASES = {
    "small": lambda: conv_classifier(3, channels=3, width=4, features=5),
    "sequence": lambda: sequence_classifier(3, width=4, batch_norm=True),
    "resnet8": lambda: cifar_resnet(8, 3),
    "resnet8, B": lambda: cifar_resnet(8, 3, shortcut="B"),
    "wrn-10-1": lambda: wide_resnet(10, 1, classes=3, dropout=0.3),
    "resnet18": lambda: resnet_encoder(18),
    "resnet50": lambda: resnet_encoder(50),
    "vgg19-bn": lambda: vgg19_bn(3, grid=1),
}


def gradient(network, weights, x, y, **options):
    loss = F.cross_entropy(functional_call(network, weights, (x,)), y)
    return torch.autograd.grad(loss, list(weights.values()), **options)


def moved(weights, direction, step):
    return {
        name: (part + step * each).detach().requires_grad_()
        for (name, part), each in zip(weights.items(), direction, strict=True)
    }


def sides(network, seen):
    """Which units each ReLU lets through, appended to `seen` at each call."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, inputs, _: seen.append(inputs[0] > 0))


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_differences_of_first_derivatives(name):
    torch.manual_seed(2)
    with narrow():
        network = scrambled(CASES[name]()).eval()
    x = torch.randn(2, 1, 40) if name == "sequence" else torch.randn(2, 3, 32, 32)
    y = torch.tensor([0, 2])
    start = dict(network.named_parameters())
    direction = [torch.randn_like(part) for part in start.values()]
    length = sum((each**2).sum() for each in direction).sqrt()
    direction = [each / length for each in direction]

    first = gradient(network, start, x, y, create_graph=True)
    product = sum((one * each).sum() for one, each in zip(first, direction, strict=True))
    second = torch.autograd.grad(product, list(start.values()), materialize_grads=True)

    seen = []
    sides(network, seen)
    ahead = gradient(network, moved(start, direction, STEP), x, y)
    behind = gradient(network, moved(start, direction, -STEP), x, y)
    half = len(seen) // 2
    assert all(map(torch.equal, seen[:half], seen[half:])), "this is no smooth point"

    found = torch.cat([part.flatten() for part in second])
    differences = [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]
    expected = torch.cat([part.flatten() for part in differences])
    assert found.isfinite().all()
    assert expected.norm() > 1e-6
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_other_weights_can_stand_in_for_those_of_a_network():
    one, other = wide_resnet(10, 1, classes=3), wide_resnet(10, 1, classes=3)
    x = torch.randn(2, 3, 32, 32)
    before = {name: part.clone() for name, part in one.named_parameters()}
    found = functional_call(one, dict(other.named_parameters()), (x,))
    assert torch.equal(found, other(x))
    assert not torch.equal(found, one(x))
    assert all(torch.equal(part, before[name]) for name, part in one.named_parameters())
