"""The bound of a spectrum by the power method: how often it holds, and how far above it is."""

from __future__ import annotations

import math

import pytest
import torch

from mlo.hypergradients.spectral_bound import FAILURE, spectral_bound

from .quadratics import joined, split, symmetric

SEEDS = range(400)


def bound_of(matrix: torch.Tensor, iterations: int, seed: int) -> float:
    like = split(torch.zeros(len(matrix), dtype=matrix.dtype))
    product = lambda x: split(matrix @ joined(x))  # noqa: E731
    return float(spectral_bound(product, like, iterations, seed))


def margin(n: int, iterations: int) -> float:
    return (2 / math.pi * n / 0.01**2) ** (1 / (2 * iterations))


SPECTRA = {
    "positive": torch.linspace(0.01, 3.0, 12).tolist(),
    "indefinite, the negative end larger": [-7.0, *torch.linspace(-1.0, 5.0, 11).tolist()],
    "plus and minus the same": [4.0, -4.0, *[1.0] * 10],
    "clustered at the top": [1.0] * 6 + [5.0 - 1e-6 * k for k in range(6)],
    "one": [2.5] * 12,
    "far apart": [10.0**-k for k in range(12)],
    "rank one": [3.0] + [0.0] * 11,
}


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_it_holds_as_often_as_promised_and_is_never_far_off(spectrum, iterations):
    matrix, _ = symmetric(SPECTRA[spectrum], seed=iterations)
    largest = max(map(abs, SPECTRA[spectrum]))
    found = torch.tensor([bound_of(matrix, iterations, seed) for seed in SEEDS])
    # 400 draws that fail with the probability 0.01 fail 12 times or more once in 1500 cases.
    assert (found < largest * (1 - 1e-12)).sum() < 12
    assert (found <= largest * margin(12, iterations) * (1 + 1e-12)).all()
    # The probability that it is below half: 0.01 / 2^iterations.
    if iterations == 10:
        assert (found > 0.5 * largest).all()


def test_the_probability_of_failure_is_the_one_that_is_named():
    # Of rank one, a single iteration fails where |b^T x| < t: 4000 draws, and the law of b^T x.
    matrix, _ = symmetric([1.0] + [0.0] * 11)
    failed = sum(bound_of(matrix, 1, seed) < 1.0 for seed in range(4000))
    # About 40, and a deviation of 6.
    assert 15 <= failed <= 4000 * FAILURE + 25


@pytest.mark.parametrize("n", [4, 30])
@pytest.mark.parametrize("iterations", [2, 10])
def test_it_bounds_the_eigenvalues_of_what_is_not_symmetric(n, iterations):
    draw = torch.Generator().manual_seed(n)
    for seed in range(100):
        matrix = torch.randn(n, n, generator=draw)
        radius = torch.linalg.eigvals(matrix).abs().max()
        norm = torch.linalg.matrix_norm(torch.linalg.matrix_power(matrix, iterations), 2)
        found = bound_of(matrix, iterations, seed)
        assert found >= radius
        assert found <= norm ** (1 / iterations) * margin(n, iterations) * (1 + 1e-12)


def test_it_is_the_formula():
    matrix, _ = symmetric([1.0, -2.0, 0.3, 0.7, 1.1])
    start = torch.Generator().manual_seed(3)
    x = joined([torch.randn(t.shape, generator=start) for t in split(torch.zeros(5))])
    power = torch.linalg.matrix_power(matrix, 6) @ (x / x.norm())
    expected = float(power.norm()) ** (1 / 6) * margin(5, 6)
    assert bound_of(matrix, 6, 3) == pytest.approx(expected, rel=1e-13)


def test_of_one_unknown_the_bound_is_its_curvature_and_the_margin():
    product = lambda x: (-3.0 * x[0],)  # noqa: E731
    found = spectral_bound(product, (torch.zeros(()),), 5, 0)
    assert float(found) == pytest.approx(3.0 * margin(1, 5), rel=1e-13)


def test_zero_is_bounded_by_zero_and_what_is_not_finite_is_not_hidden():
    assert bound_of(torch.zeros(5, 5), 4, 0) == 0.0
    assert not math.isfinite(bound_of(torch.full((5, 5), float("nan")), 4, 0))
    assert not math.isfinite(bound_of(torch.full((5, 5), float("inf")), 4, 0))


def test_huge_and_tiny_curvatures_neither_overflow_nor_vanish():
    matrix, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    for scale in (1e-12, 1e12):
        found = bound_of((scale * matrix).float(), 30, 0)
        assert 4 * scale <= found <= 4 * scale * margin(4, 30) * (1 + 1e-5)


def test_it_draws_from_no_random_state_but_its_own():
    matrix, _ = symmetric([1.0, 2.0, 3.0, 4.0])
    state = torch.get_rng_state()
    assert bound_of(matrix, 3, 5) == bound_of(matrix, 3, 5) != bound_of(matrix, 3, 6)
    assert torch.equal(torch.get_rng_state(), state)
