"""What charts are drawn from, against recomputation with numpy on the numbers themselves."""

from __future__ import annotations

import math

import numpy
import pytest

from mlo.report import curves
from mlo.report.curves import BUDGET, POINTS, Curve, bin_width, gather, mean_curve

from .made import made, move, records, response, start, tick


def test_bins_hold_the_means_of_their_ticks_and_values():
    values = numpy.random.default_rng(0).normal(size=1000)
    binned = Curve(list(range(1000)), list(values)).binned(7)
    assert list(binned) == list(range(143))
    for place, (at, value) in binned.items():
        inside = range(7 * place, min(7 * place + 7, 1000))
        assert at == pytest.approx(numpy.mean(list(inside)))
        assert value == pytest.approx(values[list(inside)].mean())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bin_with_a_number_that_is_not_finite_is_a_gap_and_its_neighbours_are_not(bad):
    binned = Curve(list(range(6)), [1.0, 2.0, 3.0, bad, 5.0, 6.0]).binned(2)
    assert binned[0] == (0.5, 1.5)
    assert math.isnan(binned[1][1])
    assert binned[2] == (4.5, 5.5)


def test_several_values_at_a_tick_are_averaged():
    assert Curve([0, 0, 1], [1.0, 3.0, 7.0]).binned(1) == {0: (0, 2.0), 1: (1, 7.0)}


@pytest.mark.parametrize("ticks", [1, POINTS, POINTS + 1, 12_345, 100_000])
@pytest.mark.parametrize("count", [1, 12, 40, 1000])
def test_no_chart_has_more_points_than_it_may(ticks, count):
    curve = Curve(list(range(ticks)), [0.0] * ticks)
    width = bin_width([curve] * count)
    points = math.ceil(ticks / width)
    assert points <= POINTS
    assert points * count <= max(BUDGET, 100 * count)
    fewest = min(POINTS, max(100, BUDGET // count))
    assert width == 1 or math.ceil(ticks / (width - 1)) > fewest, "wider bins than needed"


def test_few_evaluations_of_a_long_run_are_not_averaged():
    assert bin_width([Curve([10_000 * i for i in range(POINTS)], [0.0] * POINTS)]) == 1


def test_the_mean_over_seeds_ends_where_the_first_of_them_ends():
    a, b = Curve([0, 1, 2], [1.0, 2.0, 3.0]), Curve([0, 1], [3.0, 6.0])
    assert mean_curve([a.binned(1), b.binned(1)]) == {0: (0, 2.0), 1: (1, 4.0)}
    assert mean_curve([]) == {}


def test_a_seed_that_is_not_finite_makes_the_mean_a_gap():
    a, b = Curve([0, 1], [1.0, 2.0]), Curve([0, 1], [3.0, math.nan])
    mean = mean_curve([a.binned(1), b.binned(1)])
    assert mean[0] == (0, 2.0)
    assert math.isnan(mean[1][1])


def test_curves_are_those_of_the_records(tmp_path):
    run = made(tmp_path / "run", {"a": {0: records(6), 1: records(6, seed=1)}})
    losses = gather(run, curves.losses)
    assert set(losses) == {("a", "low"), ("a", "high")}
    assert losses["a", "low"][1].values == [2.0 / (t + 1) + 1 for t in range(6)]
    assert losses["a", "low"][1].ticks == list(range(6))
    norms = gather(run, curves.gradient_norms)
    assert norms["a", "high"][0].values == [0.1**t for t in range(6)]
    found = gather(run, curves.evaluations)
    # After the third tick, counted from 0, three ticks have been made.
    assert found["a", "test", "accuracy"][0].ticks == [3, 6]
    assert found["a", "test", "accuracy"][1].values == [2 / 6 + 0.1, 5 / 6 + 0.1]
    assert gather(run, curves.returned)["a", "high", "gain"][0].values == [0, 1, 2, 3, 4, 5]
    assert gather(run, curves.residuals)["a", "high", "low"][1].values == [
        0.5 ** (t + 2) for t in range(6)
    ]
    assert curves.problems(run) == {"a": {"low": 0, "high": 1}}
    assert curves.answering(run) == {("a", "high")}


def test_words_for_numbers_are_read_and_vectors_left_out(tmp_path):
    lines = [
        start(),
        tick(0, move("low", math.nan, math.inf, {"v": [1.0, 2.0]}, [response(None)])),
    ]
    run = made(tmp_path / "run", {"a": {0: lines}})
    assert math.isnan(gather(run, curves.losses)["a", "low"][0].values[0])
    assert gather(run, curves.gradient_norms)["a", "low"][0].values == [math.inf]
    assert gather(run, curves.gradient_norms)["a", "low"][0].broken == 1
    assert gather(run, curves.returned) == {}
    assert gather(run, curves.residuals) == {}
    assert gather(run, curves.products)["a", "low", "low"][0].values == [3]
