"""Distributions of vectors against NumPy, and vectors that evaluations return."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import mlo
from mlo.callbacks import EarlyStopping, KeepBest, Recorder
from mlo.distribution import Distribution, is_vector
from mlo.errors import EvaluationError

from .classified import engine, net_of

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("size", [2, 3, 7, 100, 101, 102, 1000, 1_000_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_percentiles_are_those_of_numpy(size, dtype):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    found = Distribution.of(values)
    exact = values.to(torch.float64).numpy()
    expected = np.percentile(exact, range(101))
    np.testing.assert_allclose(found.percentiles, expected, rtol=1e-9, atol=1e-9)
    assert (found.percentiles[0], found.percentiles[100]) == (exact.min(), exact.max())
    assert found.count == size
    assert found.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-12)
    assert list(found.percentiles) == sorted(found.percentiles)


@pytest.mark.parametrize(
    "values", [[3, 3, 3], [0, 10**6], [5, 1, 4, 1], [True, False, True], [255, 0]]
)
def test_whole_numbers_and_equal_ones_have_percentiles_too(values):
    found = Distribution.of(torch.tensor(values))
    np.testing.assert_allclose(found.percentiles, np.percentile(np.float64(values), range(101)))
    assert found.mean == pytest.approx(np.mean(values))


def test_equal_numbers_stay_what_they_are():
    found = Distribution.of(torch.full((7,), 0.1))
    assert found.percentiles == (0.1,) * 101
    assert found.mean == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([INF, INF], {0: INF, 50: INF, 100: INF}),
        ([-INF, -INF, -INF], {0: -INF, 33: -INF, 100: -INF}),
        ([1.0, INF], {0: 1.0, 1: INF, 50: INF, 99: INF, 100: INF}),
        ([-INF, 1.0], {0: -INF, 1: -INF, 50: -INF, 99: -INF, 100: 1.0}),
        ([-INF, 1.0, INF], {0: -INF, 25: -INF, 50: 1.0, 75: INF, 100: INF}),
        ([1.0, 2.0, 3.0, 4.0, INF], {25: 2.0, 50: 3.0, 75: 4.0, 76: INF}),
        ([-INF, INF], {0: -INF, 50: NAN, 100: INF}),
        ([1.0, NAN, INF], {0: NAN, 50: NAN, 100: NAN}),
        ([NAN, NAN], {0: NAN, 50: NAN, 100: NAN}),
    ],
)
def test_infinities_and_nan_are_what_they_must_be(values, expected):
    found = Distribution.of(torch.tensor(values))
    for percent, value in expected.items():
        assert found.percentiles[percent] == pytest.approx(value, nan_ok=True), percent
    with np.errstate(invalid="ignore"):
        assert found.mean == pytest.approx(np.mean(values), nan_ok=True)


def test_order_graph_and_layout_do_not_matter():
    values = torch.randn(60)
    expected = Distribution.of(values)
    leaf = values.clone().requires_grad_()
    for other in (values.flip(0), leaf, torch.stack([values, values], 1)[:, 0]):
        found = Distribution.of(other)
        assert found.percentiles == expected.percentiles
        assert found.mean == pytest.approx(expected.mean, abs=1e-15)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.ones(2), True),
        (torch.ones(1), False),
        (torch.ones(0), False),
        (torch.tensor(1.0), False),
        (torch.ones(2, 2), False),
        (torch.ones(2, dtype=torch.complex64), False),
        ([1.0, 2.0], False),
        (3.0, False),
    ],
)
def test_vectors_are_tensors_of_several_real_numbers(value, expected):
    assert is_vector(value) is expected


def evaluated(*values, callbacks=(), net=None):
    left = iter(values)
    return engine(net).run(
        ticks=len(values),
        callbacks=callbacks,
        evaluate={"look": (lambda net: {"v": next(left), "one": torch.tensor([2.5])}, 1)},
    )


def test_the_metric_of_a_vector_is_its_mean_and_one_entry_is_a_number():
    (record,) = evaluated(torch.tensor([1.0, 2.0, 6.0])).evaluations
    assert record.metrics == {"v": 3.0, "one": 2.5}
    assert record.distributions.keys() == {"v"}
    assert record.distributions["v"].percentiles[50] == 2.0
    result = engine().run(1, evaluate={"alone": (lambda net: torch.arange(3.0), 1)})
    assert result.last("alone") == {"alone": 1.0}
    assert result.evaluations[0].distributions["alone"].count == 3


def test_those_who_follow_a_metric_follow_the_mean_of_a_vector(tmp_path):
    net, path = net_of(), tmp_path / "records.jsonl"
    keep = KeepBest("look", "v", modules={"net": net})
    stop = EarlyStopping("look", "v", patience=2)
    means = [1.0, 3.0, 2.0, NAN, 9.0]
    vectors = [torch.tensor([mean - 1, mean + 1]) for mean in means]
    result = evaluated(*vectors, callbacks=[keep, stop, Recorder(path)], net=net)
    assert (result.status, result.ticks) == (mlo.Status.STOPPED, 4)
    assert keep.best.tick == stop.best.tick == 1
    assert result.best("look", "v").metrics["v"] == 3.0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = [line for line in lines if line["kind"] == "evaluation"]
    assert [record["metrics"]["v"] for record in records] == [1.0, 3.0, 2.0, "nan"]
    spread = records[1]["distributions"]["v"]
    assert (spread["count"], spread["mean"], len(spread["percentiles"])) == (2, 3.0, 101)
    assert (spread["percentiles"][0], spread["percentiles"][100]) == (2.0, 4.0)
    assert Distribution.of(vectors[1]).plain() == {
        **spread,
        "percentiles": tuple(spread["percentiles"]),
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(2, 3), r"tensor of shape \[2, 3\]"),
        (torch.ones(0), r"tensor of shape \[0\]"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(3).to_sparse(), r"tensor of shape \[3\]"),
        (np.ones(3), "array"),
        ("high", "'high'"),
    ],
)
def test_what_is_neither_number_nor_vector_is_refused_by_name(value, found):
    with pytest.raises(EvaluationError, match=rf"'look'.*number or vector.*{found}.* as 'v'"):
        evaluated(value)
