"""The sketch and its inverse: against NumPy, and within their error bounds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from mlo import Nystrom
from mlo.hypergradients.sketch import directions, sketch, solve_sketched

from .preconditioned import right_side
from .quadratics import answer, joined, split, symmetric


def made(matrix, rank, seed):
    """Basis and eigenvalues, by products with parameters of several shapes."""
    like = split(matrix[0])
    tests = directions(like, rank, seed)
    return sketch(lambda p: split(matrix @ joined(p)), like, tests)


def low_rank(matrix, rank, seed):
    basis, values = made(matrix, rank, seed)
    eye = torch.eye(len(values))
    torch.testing.assert_close(basis.T @ basis, eye, rtol=0, atol=1e-13)
    return (basis * values) @ basis.T


@pytest.mark.parametrize("rank", [1, 3, 6, 8])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("signs", [1.0, -1.0])
def test_it_is_what_numpy_makes_of_the_same_draw_for_an_indefinite_matrix_too(rank, seed, signs):
    eigenvalues = [3.0 * signs, 1.0, 0.5, 7.0 * signs, 4.0, 0.2 * signs, 1.0 * signs, 2.0]
    matrix, _ = symmetric(eigenvalues, seed=2)
    draw = torch.Generator().manual_seed(seed)
    # Any basis of the span of the Gaussian columns gives the same.
    tests = torch.randn(8, rank, generator=draw).numpy()
    images = matrix.numpy() @ tests
    inner = tests.T @ images
    expected = torch.from_numpy(images @ np.linalg.pinv(inner) @ images.T)
    loss = np.linalg.cond(inner) * np.linalg.cond(tests)
    error = (low_rank(matrix, rank, seed) - expected).norm() / expected.norm()
    assert float(error) < 1e-14 * loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_directions_beyond_the_rank_of_the_matrix_add_rounding_and_no_more(dtype):
    """For most of these draws an eigenvalue of X^T H X that is rounding would be inverted."""
    rounding = torch.finfo(dtype).eps
    for seed in range(60):
        matrix, _ = symmetric([5.0, -3.0, 1.0, *[0.0] * 27], seed=seed)
        matrix = matrix.to(dtype)
        basis, values = (t.double() for t in made(matrix, 12, seed))
        error = matrix.double() - (basis * values) @ basis.T
        assert float(error.norm() / matrix.double().norm()) < 100 * rounding


@pytest.mark.parametrize("damping", [1e-12, 1e-2, 10.0])
def test_its_inverse_is_that_of_the_matrix_written_out(damping):
    matrix, _ = symmetric([3.0, -1.0, 0.5, 7.0, -4.0, 0.2, 1.0, 2.0])
    basis, values = made(matrix, 3, 0)
    v = right_side(8)
    found = joined(solve_sketched(basis, values, damping, split(v)))
    # In a whole eigenbasis, so that nothing cancels where the damping is small.
    _, vectors = torch.linalg.eigh(torch.eye(8) - basis @ basis.T)
    whole = torch.cat([basis, vectors[:, 3:]], dim=1)
    diagonal = torch.cat([values, torch.zeros(5)]) + damping
    expected = whole @ ((whole.T @ v) / diagonal)
    assert float((found - expected).norm() / expected.norm()) < 1e-13


SPECTRA = {
    "polynomial": lambda j: j**-2.0,
    "exponential": lambda j: 10.0 ** (-j / 4),
    "a step": lambda j: torch.where(j <= 6, 1.0, 1e-3),
    "flat": lambda j: 1.0 / (1.0 + 0.02 * j),
    "rank 4": lambda j: (j <= 4).to(j.dtype),
}
RANKS = (4, 8, 16, 32)


@functools.cache
def errors(spectrum):
    """The matrix, its eigenvalues, and H - H_k for every rank and ten seeds."""
    eigenvalues = SPECTRA[spectrum](torch.arange(1.0, 65.0))
    matrix, _ = symmetric(eigenvalues.tolist(), seed=7)
    rests = {k: [matrix - low_rank(matrix, k, seed) for seed in range(10)] for k in RANKS}
    return matrix, eigenvalues, rests


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_error_of_the_sketch_is_within_its_theory(spectrum):
    _, eigenvalues, rests = errors(spectrum)
    tail = [float(eigenvalues[r:].sum()) for r in range(65)]
    rounding, before = 1e-11, float("inf")
    for rank, found in rests.items():
        # 0 <= H - H_k, and no approximation of this rank is closer than the best one.
        lowest = min(float(torch.linalg.eigvalsh(rest)[0]) for rest in found)
        assert lowest > -rounding
        sizes = [float(torch.linalg.matrix_norm(rest, 2)) for rest in found]
        assert min(sizes) >= float(eigenvalues[rank]) - rounding
        # E tr(H - H_k) <= (1 + r / (k - r - 1)) sum_{j > r} lambda_j for r <= k - 2: theorem 10.5
        # of Halko, Martinsson and Tropp for the root of H. A mean of ten, so with a margin.
        bound = min((1 + r / (rank - r - 1)) * tail[r] for r in range(rank - 1))
        mean = sum(float(rest.trace()) for rest in found) / len(found)
        assert mean <= 1.2 * bound + rounding
        # Frangella et al., proposition 2.2, for the spectral norm.
        bound = min(
            (1 + 2 * (rank - p) / (p - 1)) * float(eigenvalues[rank - p])
            + 2 * np.e**2 * rank / (p**2 - 1) * tail[rank - p]
            for p in range(2, rank - 1)
        )
        assert sum(sizes) / len(sizes) <= bound + rounding
        assert mean <= before + rounding
        before = mean


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_the_error_of_the_answer_is_within_what_the_docstring_of_nystrom_says(spectrum, damping):
    matrix, _, rests = errors(spectrum)
    v = right_side(64)
    exact = torch.linalg.solve(matrix + damping * torch.eye(64), v)
    for rank, found in rests.items():
        size = float(torch.linalg.matrix_norm(found[3], 2))
        u, _ = answer(Nystrom(rank=rank, damping=damping, seed=3), matrix, v)
        bound = size / (damping * (size + damping)) * float(v.norm())
        assert float((u - exact).norm()) <= bound * (1 + 1e-9) + 1e-9
