"""Drop path: what is drawn, for whom, and when."""

from __future__ import annotations

import pytest
import torch

from mlo.errors import ConfigurationError
from problems.nas.genotype import Cell
from problems.nas.networks import check_drop_path, drop_path
from problems.nas.networks.cells import DiscreteCell
from problems.nas.skeleton import CellPlace


@pytest.mark.parametrize("shape", [(40, 3, 4, 5), (40, 3, 7), (40, 3)], ids=str)
def test_an_example_is_left_out_as_a_whole_or_scaled_as_a_whole(shape):
    x = torch.randn(shape)
    y = drop_path(x, 0.3).flatten(1)
    dropped = (y == 0).all(1)
    assert 0 < dropped.sum() < 40
    torch.testing.assert_close(y[~dropped], x.flatten(1)[~dropped] / 0.7, rtol=1e-15, atol=0)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
def test_the_share_of_dropped_examples_is_the_probability_and_the_mean_stays(p):
    n = 100_000
    y = drop_path(torch.ones(n, 1, 1, 1), p)
    spread = (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).double().mean() - p) < 4 * spread
    assert abs(y.mean() - 1) < 4 * spread / (1 - p)


def test_at_zero_nothing_is_drawn_and_nothing_is_copied():
    before, x = torch.get_rng_state(), torch.randn(3, 2, 2, 2)
    torch.set_rng_state(before)
    assert drop_path(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_has_the_type_of_the_input(dtype):
    assert drop_path(torch.ones(4, 1, dtype=dtype), 0.5).dtype == dtype


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, float("nan")])
def test_what_is_no_probability_below_one_is_refused(p):
    with pytest.raises(ConfigurationError, match=r"drop_path: expected a probability in \[0, 1\)"):
        check_drop_path(p)


def small_cell(reduce: bool) -> DiscreteCell:
    """One node: a skip of the second input, and a convolution of the first one."""
    node = [
        {"operation": "skip_connect", "input": 1},
        {"operation": "conv_3x3", "input": 0},
    ]
    cell = Cell.model_validate({"nodes": [node], "concat": [2]})
    place = CellPlace("reduce" if reduce else "normal", (4, 4), 4, reduced=False)
    return DiscreteCell(cell, place, 2)


@pytest.mark.parametrize("reduce", [False, True])
def test_an_identity_is_never_dropped_and_every_other_operation_on_its_own(reduce):
    cell = small_cell(reduce)
    a, b = torch.randn(64, 4, 6, 6), torch.randn(64, 4, 6, 6)
    skip, convolution = cell.operations
    values = [skip(cell.second(b)), convolution(cell.first(a))]
    y = cell(a, b, 0.5)
    # Each example is one of these sums, with 0 for what is dropped and 2 for what is kept.
    factors = [(s, c) for s in ((0, 2) if reduce else (1,)) for c in (0, 2)]
    sums = torch.stack([s * values[0] + c * values[1] for s, c in factors])
    near = (sums - y).flatten(2).abs().amax(2) < 1e-12
    assert torch.equal(near.sum(0), torch.ones(64, dtype=torch.long))
    assert (near.sum(1) > 5).all()


def test_nothing_is_dropped_in_evaluation_mode():
    cell = small_cell(True)
    a, b = torch.randn(8, 4, 6, 6), torch.randn(8, 4, 6, 6)
    cell(a, b, 0.5)
    cell.eval()
    state = torch.get_rng_state()
    assert torch.equal(cell(a, b, 0.9), cell(a, b, 0.0))
    assert torch.equal(torch.get_rng_state(), state)
