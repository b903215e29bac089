"""Fans and histograms of distributions, against the samples that they came from."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from mlo.distribution import Distribution
from mlo.report.weights import BINS, edges, histogram, spreads

from .made import distribution, evaluation, made, start


def of(values):
    return Distribution.of(torch.as_tensor(values)).plain()


def test_a_histogram_is_close_to_that_of_the_samples_pooled():
    random = numpy.random.default_rng(0)
    samples = [random.normal(size=20_000), random.uniform(2, 4, size=5_000)]
    plain = [of(sample) for sample in samples]
    bars = edges(plain)
    expected, _ = numpy.histogram(numpy.concatenate(samples), bars)
    found = histogram(plain, bars)
    assert found.sum() == pytest.approx(1)
    assert numpy.abs(found - expected / expected.sum()).max() < 0.01
    assert bars[0] == min(map(min, samples))
    assert bars[-1] == max(map(max, samples))


def test_a_seed_counts_by_its_numbers():
    few, many = distribution([0.0] * 101, count=100), distribution([1.0] * 101, count=300)
    shares = histogram([few, many], edges([few, many]))
    assert shares[0] == pytest.approx(0.25)
    assert shares[-1] == pytest.approx(0.75)


def test_evenly_spread_numbers_fill_all_bars_alike_and_atoms_one():
    even = distribution([p / 100 for p in range(101)])
    assert histogram([even], edges([even])) == pytest.approx(numpy.full(BINS, 1 / BINS))
    # 50 of the 100 intervals lie at 0; the others fill 40 bars of 0.025 with 0.5 together.
    half = distribution([0.0] * 50 + [p / 50 for p in range(51)])
    expected = numpy.full(BINS, 0.5 / BINS)
    expected[0] += 0.5
    assert histogram([half], edges([half])) == pytest.approx(expected)


def test_numbers_that_are_all_one_have_a_bar():
    one = distribution([0.3] * 101)
    shares = histogram([one], edges([one]))
    assert shares.sum() == pytest.approx(1)
    assert shares.max() == pytest.approx(1)


def test_a_percentile_of_the_fan_is_the_mean_over_the_seeds(tmp_path):
    low, high = [p / 100 for p in range(101)], [p / 50 for p in range(101)]
    lines = {
        seed: [start(), evaluation(4, "w", {"a": 0.5}, {"a": distribution(numbers)})]
        for seed, numbers in enumerate((low, high))
    }
    (spread,) = spreads(made(tmp_path / "run", {"s": lines}))
    assert (spread.stage, spread.evaluation, spread.metric) == ("s", "w", "a")
    assert list(spread.percentiles()) == [5]
    assert spread.percentiles()[5] == pytest.approx([1.5 * p / 100 for p in range(101)])


def test_distributions_with_a_nan_are_counted_and_left_out_of_the_histogram(tmp_path):
    broken, whole = distribution([math.nan] * 101), distribution([1.0] * 101)
    seeds = {0: (whole, broken), 1: (whole, whole)}
    lines = {
        seed: [start(), *(evaluation(t, "w", {"a": 1.0}, {"a": d}) for t, d in enumerate(of))]
        for seed, of in seeds.items()
    }
    (spread,) = spreads(made(tmp_path / "run", {"s": lines}))
    assert spread.broken == 1
    assert [one["percentiles"][0] for one in spread.final()] == [1.0]
    assert numpy.isnan(spread.percentiles()[2]).all()
    assert numpy.isfinite(spread.percentiles()[1]).all()
