"""Every operation against formulas of torch.nn.functional, for images and sequences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlo.errors import ConfigurationError
from problems.nas.operations import OPERATIONS, FactorizedReduce, ReLUConvBN, make_operation

SIZES = [(8,), (7,), (1,), (8, 6), (7, 5), (8, 5), (1, 1)]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def conv(x: Tensor, weight: Tensor, **options) -> Tensor:
    return (F.conv1d if x.dim() == 3 else F.conv2d)(x, weight, **options)


def normalized(x: Tensor) -> Tensor:
    over = [0, *range(2, x.dim())]
    centred = x - x.mean(over, keepdim=True)
    return centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()


def weights(operation: nn.Module) -> list[Tensor]:
    return [p for p in operation.parameters() if p.dim() > 1]


def depthwise(x: Tensor, each: Tensor, mix: Tensor, stride: int, dilation: int = 1) -> Tensor:
    padding = dilation * (each.shape[-1] // 2)
    x = conv(
        x.clamp(min=0),
        each,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=x.shape[1],
    )
    return normalized(conv(x, mix))


def windows(x: Tensor, stride: int, fill: float) -> Tensor:
    """The numbers of each window of three places a side, in a last dimension."""
    x = F.pad(x, [1, 1] * (x.dim() - 2), value=fill)
    for dimension in range(2, x.dim()):
        x = x.unfold(dimension, 3, stride)
    return x.flatten(-((x.dim() - 2) // 2))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_the_channels_and_divides_the_size_rounded_up(name, stride, size):
    operation = make_operation(name, 4, stride, affine=True, dimensions=len(size))
    y = operation(torch.randn(3, 4, *size))
    assert y.shape == (3, 4, *(-(-each // stride) for each in size))


@pytest.mark.parametrize("size", [(8,), (7,), (8, 6), (7, 5)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
class TestFormulas:
    @pytest.mark.parametrize("kernel", [3, 5, 7])
    def test_a_separable_convolution_is_applied_twice(self, kernel, stride, size):
        name = f"sep_conv_{kernel}x{kernel}"
        operation = make_operation(name, 4, stride, affine=False, dimensions=len(size))
        x = torch.randn(3, 4, *size)
        first, mix, second, again = weights(operation)
        assert first.shape[-1] == kernel
        expected = depthwise(depthwise(x, first, mix, stride), second, again, 1)
        torch.testing.assert_close(operation(x), expected, **CLOSE)

    @pytest.mark.parametrize("kernel", [3, 5])
    def test_a_dilated_convolution_sees_every_second_place(self, kernel, stride, size):
        name = f"dil_conv_{kernel}x{kernel}"
        operation = make_operation(name, 4, stride, affine=False, dimensions=len(size))
        x = torch.randn(3, 4, *size)
        # A kernel with zeros between its numbers is one with dilation.
        each, mix = weights(operation)
        spread = torch.zeros(4, 1, *[2 * kernel - 1] * len(size))
        spread[(..., *[slice(None, None, 2)] * len(size))] = each
        torch.testing.assert_close(operation(x), depthwise(x, spread, mix, stride), **CLOSE)

    @pytest.mark.parametrize("kernel", [1, 3, 5])
    def test_a_plain_convolution_follows_relu_and_is_normalized(self, kernel, stride, size):
        name = f"conv_{kernel}x{kernel}"
        operation = make_operation(name, 4, stride, affine=False, dimensions=len(size))
        x = torch.randn(3, 4, *size)
        (weight,) = weights(operation)
        assert weight.shape[-1] == kernel
        y = conv(x.clamp(min=0), weight, stride=stride, padding=kernel // 2)
        torch.testing.assert_close(operation(x), normalized(y), **CLOSE)

    def test_seven_by_one_is_the_outer_product_of_a_row_and_a_column(self, stride, size):
        operation = make_operation("conv_7x1_1x7", 4, stride, affine=False, dimensions=len(size))
        x = torch.randn(3, 4, *size)
        kernel = weights(operation)
        whole = kernel[0]
        if len(size) == 2:
            row, column = kernel
            whole = torch.einsum("omyq,miqx->oiyx", column, row)
        y = conv(x.clamp(min=0), whole, stride=stride, padding=3)
        torch.testing.assert_close(operation(x), normalized(y), **CLOSE)

    def test_a_maximum_is_over_the_places_inside(self, stride, size):
        operation = make_operation("max_pool_3x3", 4, stride, affine=True, dimensions=len(size))
        x = torch.randn(3, 4, *size) - 5  # below zero, so that zeros around it would win
        expected = windows(x, stride, -torch.inf).amax(-1)
        torch.testing.assert_close(operation(x), expected, **CLOSE)

    def test_an_average_counts_only_the_places_inside(self, stride, size):
        operation = make_operation("avg_pool_3x3", 4, stride, affine=True, dimensions=len(size))
        x = torch.randn(3, 4, *size)
        expected = windows(x, stride, torch.nan).nanmean(-1)
        torch.testing.assert_close(operation(x), expected, **CLOSE)

    def test_a_skip_is_the_input_or_its_halves_in_turn(self, stride, size):
        operation = make_operation("skip_connect", 5, stride, affine=False, dimensions=len(size))
        x = torch.randn(3, 5, *size)
        y = operation(x)
        if stride == 1:
            assert y is x
            return
        even, odd = weights(operation)
        assert (even.shape[0], odd.shape[0]) == (2, 3)
        expected = torch.zeros(3, 5, *(-(-each // 2) for each in size))
        positive = x.clamp(min=0)
        for place in torch.cartesian_prod(*map(torch.arange, expected.shape[2:])).view(
            -1, len(size)
        ):
            here = (..., *place)
            expected[:, :2][here] = positive[(..., *(2 * place))] @ even.flatten(1).T
            if all(2 * p + 1 < n for p, n in zip(place, size, strict=True)):
                expected[:, 2:][here] = positive[(..., *(2 * place + 1))] @ odd.flatten(1).T
        torch.testing.assert_close(y, normalized(expected), **CLOSE)

    def test_none_is_zeros_even_of_inputs_that_are_not_finite(self, stride, size):
        operation = make_operation("none", 4, stride, affine=True, dimensions=len(size))
        y = operation(torch.full((3, 4, *size), torch.inf))
        assert not y.any()


def learned_scales(module: nn.Module) -> int:
    return sum(p.dim() == 1 for p in module.parameters())


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_scales_are_learned_where_asked_for_and_no_convolution_has_a_bias(name, dimensions):
    norms = {"sep": 4, "dil": 2, "con": 2, "ski": 2}.get(name[:3], 0)
    plain = make_operation(name, 4, 2, affine=False, dimensions=dimensions)
    scaled = make_operation(name, 4, 2, affine=True, dimensions=dimensions)
    assert (learned_scales(plain), learned_scales(scaled)) == (0, norms)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "none"])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_second_derivatives_are_those_of_differences(name, dimensions):
    operation = make_operation(name, 2, 2, affine=True, dimensions=dimensions)
    x = torch.randn(2, 2, *[5] * dimensions, requires_grad=True)
    probe = torch.randn_like(operation(x))
    assert torch.autograd.gradgradcheck(
        lambda v: (operation(v) * probe).sin().sum(), x, atol=1e-6, fast_mode=True
    )


def test_blocks_change_the_number_of_channels():
    x = torch.randn(2, 3, 7, 4)
    assert ReLUConvBN(3, 8)(x).shape == (2, 8, 7, 4)
    assert ReLUConvBN(3, 8, 3, 2)(x).shape == (2, 8, 4, 2)
    assert FactorizedReduce(3, 8)(x).shape == (2, 8, 4, 2)
    assert FactorizedReduce(3, 8, dimensions=1)(x[..., 0]).shape == (2, 8, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "sep_conv_3"}, ["sep_conv_3'", "did you mean 'sep_conv_3x3'"]),
        ({"name": "zzz"}, ["'zzz'", "'dil_conv_5x5'"]),
        ({"channels": 0}, ["channels", "found 0"]),
        ({"stride": 3}, ["stride", "found 3"]),
        ({"dimensions": 3}, ["dimensions", "found 3"]),
        ({"name": "skip_connect", "channels": 1, "stride": 2}, ["at least 2", "found 1"]),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments, words):
    settings = {"name": "conv_3x3", "channels": 4, "stride": 1, "dimensions": 2, **arguments}
    with pytest.raises(ConfigurationError) as caught:
        make_operation(**settings, affine=True)
    assert all(word in str(caught.value) for word in words)
