"""Discrete networks against formulas of torch.nn.functional, with drop path and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from problems.nas.genotype import Genotype, MacroGenotype
from problems.nas.networks import AuxiliaryHead, CifarNetwork, ImageNetNetwork, MacroNetwork
from problems.nas.published import DARTS_V2

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def cell(concat: tuple[int, ...], *choices: tuple[str, int]) -> dict:
    pairs = [{"operation": name, "input": source} for name, source in choices]
    return {"nodes": list(zip(pairs[::2], pairs[1::2], strict=True)), "concat": concat}


# Outputs of different widths, in another order than that of the nodes.
GENOTYPE = Genotype.model_validate(
    {
        "normal": cell(
            (4, 2),
            ("conv_3x3", 1),
            ("skip_connect", 0),
            ("skip_connect", 2),
            ("max_pool_3x3", 1),
            ("conv_1x1", 3),
            ("avg_pool_3x3", 0),
        ),
        "reduce": cell(
            (3, 2, 4),
            ("skip_connect", 0),
            ("conv_3x3", 1),
            ("conv_1x1", 2),
            ("avg_pool_3x3", 0),
            ("skip_connect", 3),
            ("max_pool_3x3", 1),
        ),
    }
)


class Reference:
    """Computes with the parameters of a network, and draws as drop path does."""

    def __init__(self, network: nn.Module, dimensions: int, probability: float = 0.0) -> None:
        self.tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self.dimensions, self.probability = dimensions, probability

    def function(self, name: str) -> Callable[..., Tensor]:
        return getattr(F, f"{name}{self.dimensions}d")

    def conv(self, x: Tensor, name: str, **options) -> Tensor:
        return self.function("conv")(x, self.tensors[f"{name}.weight"], **options)

    def norm(self, x: Tensor, name: str) -> Tensor:
        shape = (1, -1, *(1,) * self.dimensions)
        over = [0, *range(2, x.dim())]
        centred = x - x.mean(over, keepdim=True)
        scaled = centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()
        weight, bias = (self.tensors[f"{name}.{each}"].view(shape) for each in ("weight", "bias"))
        return scaled * weight + bias

    def conv_bn(self, x: Tensor, name: str, kernel: int = 1, stride: int = 1) -> Tensor:
        x = self.conv(x.clamp(min=0), f"{name}.1", stride=stride, padding=kernel // 2)
        return self.norm(x, f"{name}.2")

    def halved(self, x: Tensor, name: str) -> Tensor:
        x = x.clamp(min=0)
        x = F.pad(x, [p for size in reversed(x.shape[2:]) for p in (0, size % 2)])
        other = x[(..., *(slice(1, None),) * self.dimensions)]
        parts = [
            self.conv(each, f"{name}.{half}", stride=2)
            for each, half in ((x, "even"), (other, "odd"))
        ]
        return self.norm(torch.cat(parts, 1), f"{name}.norm")

    def operation(self, x: Tensor, kind: str, name: str, stride: int) -> Tensor:
        if kind == "skip_connect" and stride == 1:
            return x
        if kind == "skip_connect":
            y = self.halved(x, name)
        elif kind == "max_pool_3x3":
            y = self.function("max_pool")(x, 3, stride, 1)
        elif kind == "avg_pool_3x3":
            y = self.function("avg_pool")(x, 3, stride, 1, count_include_pad=False)
        else:
            y = self.conv_bn(x, name, int(kind[-1]), stride)
        if self.probability == 0:
            return y
        keep = 1 - self.probability
        mask = torch.empty(len(y), *(1,) * (self.dimensions + 1)).bernoulli_(keep)
        return y * mask / keep

    def cell(self, s0: Tensor, s1: Tensor, k: int, kind: str, reduced: bool) -> Tensor:
        first = self.halved if reduced else self.conv_bn
        states = [first(s0, f"cells.{k}.first"), self.conv_bn(s1, f"cells.{k}.second")]
        genes, number = getattr(GENOTYPE, kind), 0
        for pair in genes.nodes:
            total = 0
            for choice in pair:
                stride = 2 if kind == "reduce" and choice.input < 2 else 1
                name = f"cells.{k}.operations.{number}"
                total = total + self.operation(states[choice.input], choice.operation, name, stride)
                number += 1
            states.append(total)
        return torch.cat([states[state] for state in genes.concat], 1)

    def network(
        self, s0: Tensor, s1: Tensor, kinds: list[str], reduced: bool
    ) -> tuple[Tensor, list[Tensor]]:
        outputs = []
        for k, kind in enumerate(kinds):
            s0, s1 = s1, self.cell(s0, s1, k, kind, reduced)
            reduced = kind == "reduce"
            outputs.append(s1)
        return self.linear(s1.flatten(2).mean(2), "linear"), outputs

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def auxiliary(self, x: Tensor, stride: int, last_norm: bool) -> Tensor:
        x = self.function("avg_pool")(x.clamp(min=0), 5, stride)
        x = self.norm(self.conv(x, "auxiliary.features.2"), "auxiliary.features.3").clamp(min=0)
        x = self.conv(x, "auxiliary.features.5")
        x = self.norm(x, "auxiliary.features.6") if last_norm else x
        return self.linear(x.clamp(min=0).flatten(1), "auxiliary.linear")


def scattered(network: nn.Module) -> nn.Module:
    """Scales and shifts that are not those of the start."""
    for name, p in network.named_parameters():
        if p.dim() == 1:
            nn.init.normal_(p, float(name.endswith("weight")), 0.3)
    return network


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(3, 32, 30), (2, 31)], ids=str)
def test_the_cifar_network_is_what_its_genotype_says(shape, p):
    dimensions = len(shape) - 1
    network = CifarNetwork(
        GENOTYPE, 5, channels=3, layers=4, inputs=shape[0], dimensions=dimensions
    )
    reference = Reference(scattered(network), dimensions, p)
    x = torch.randn(6, *shape)
    torch.manual_seed(3)
    logits, auxiliary = network.with_auxiliary(x, p)
    torch.manual_seed(3)
    stem = reference.norm(reference.conv(x, "stem.0", padding=1), "stem.1")
    kinds = ["normal", "reduce", "reduce", "normal"]
    expected, outputs = reference.network(stem, stem, kinds, reduced=False)
    torch.testing.assert_close(logits, expected, **CLOSE)
    torch.testing.assert_close(auxiliary, reference.auxiliary(outputs[2], 3, True), **CLOSE)
    torch.manual_seed(3)
    assert torch.equal(network(x, p), logits)
    assert outputs[2].shape[1] == 3 * 12


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_the_imagenet_network_is_what_its_genotype_says(p):
    network = ImageNetNetwork(GENOTYPE, 5, channels=4, layers=4, auxiliary=False)
    reference = Reference(scattered(network), 2, p)
    x = torch.randn(3, 3, 64, 50)
    torch.manual_seed(3)
    logits, nothing = network.with_auxiliary(x, p)
    assert nothing is None
    torch.manual_seed(3)
    halving = {"stride": 2, "padding": 1}
    s0 = reference.norm(reference.conv(x, "stem0.0", **halving), "stem0.1").clamp(min=0)
    s0 = reference.norm(reference.conv(s0, "stem0.3", **halving), "stem0.4")
    s1 = reference.norm(reference.conv(s0.clamp(min=0), "stem1.1", **halving), "stem1.2")
    assert (s0.shape[1:], s1.shape[1:]) == ((4, 16, 13), (4, 8, 7))
    assert network.stem0[0].out_channels == 2
    kinds = ["normal", "reduce", "reduce", "normal"]
    expected, _ = reference.network(s0, s1, kinds, reduced=True)
    torch.testing.assert_close(logits, expected, **CLOSE)


def test_the_auxiliary_head_for_imagenet_has_stride_two_and_one_normalization_less():
    module = nn.Module()
    module.auxiliary = AuxiliaryHead(6, 4, stride=2, last_norm=False)
    reference, x = Reference(scattered(module), 2), torch.randn(5, 6, 7, 8)
    expected = reference.auxiliary(x, 2, last_norm=False)
    torch.testing.assert_close(module.auxiliary(x), expected, **CLOSE)
    network = ImageNetNetwork(GENOTYPE, 4, channels=2, layers=3)
    assert [type(m) for m in network.auxiliary.features] == [
        type(m) for m in module.auxiliary.features
    ]
    assert network.auxiliary.smallest == 7


@pytest.mark.parametrize("shape", [(2, 9, 12), (2, 22)], ids=str)
def test_the_network_of_a_chain_is_what_its_genotype_says(shape):
    dimensions = len(shape) - 1
    names = ("conv_3x3", "max_pool_3x3", "skip_connect", "conv_1x1", "avg_pool_3x3", "conv_5x5")
    network = MacroNetwork(
        MacroGenotype(layers=names), 4, channels=3, inputs=2, dimensions=dimensions
    )
    reference = Reference(scattered(network), dimensions)
    x = torch.randn(5, *shape)
    y = reference.norm(reference.conv(x, "stem.0", padding=1), "stem.1")
    for k, name in enumerate(names):
        if k in (2, 4):
            y = reference.conv_bn(y, f"widen.{k}")
        y = reference.operation(y, name, f"layers.{k}", 2 if k in (2, 4) else 1)
    places = 2 if dimensions == 2 else 5
    pooled = reference.function("adaptive_avg_pool")(y, places).flatten(1)
    assert pooled.shape[1] == 12 * places**dimensions
    torch.testing.assert_close(network(x), reference.linear(pooled, "linear"), **CLOSE)
    assert network.with_auxiliary(x)[1] is None


def test_gradients_reach_all_parameters():
    network = CifarNetwork(DARTS_V2, 4, channels=4, layers=6)
    logits, auxiliary = network.with_auxiliary(torch.randn(4, 3, 32, 32), 0.1)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_cells_reduce_at_the_thirds_of_twenty_layers_and_the_head_stands_behind_the_second():
    seen = []
    network = CifarNetwork(DARTS_V2, 10, channels=2)
    for module in (*network.cells, network.auxiliary):
        module.register_forward_hook(lambda _, given, y: seen.append((given[0].shape, y.shape)))
    network.with_auxiliary(torch.randn(2, 3, 32, 32))
    expected = [(8, 32)] * 6 + [(16, 16)] * 7 + [(32, 8)] * 7
    assert [(y[1], y[2]) for _, y in seen[:20]] == expected
    assert seen[20] == ((2, 32, 8, 8), (2, 10))
    assert network.branch == 13
