"""Label noise: matrices against hand-worked ones, and draws against binomial bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlo.errors import ConfigurationError
from problems.datasets import (
    KINDS,
    corrupt,
    flip_matrix,
    hierarchical_matrix,
    transition_matrix,
    uniform_matrix,
)

SUPERCLASSES = torch.tensor([0, 1, 0, 2, 1, 0, 2, 3, 3, 3])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(kind, rate, seed=0, classes=10, superclasses=SUPERCLASSES):
    return transition_matrix(kind, classes, rate, generator=seeded(seed), superclasses=superclasses)


def test_the_hierarchical_matrix_of_a_hand_worked_case():
    found = hierarchical_matrix(torch.tensor([1, 0, 1, 1, 0]), 0.4)
    expected = torch.tensor(
        [
            [0.6, 0.0, 0.2, 0.2, 0.0],
            [0.0, 0.6, 0.0, 0.0, 0.4],
            [0.2, 0.0, 0.6, 0.2, 0.0],
            [0.2, 0.0, 0.2, 0.6, 0.0],
            [0.0, 0.4, 0.0, 0.0, 0.6],
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_named_kinds_are_the_functions_of_those_names():
    for rate in (0.2, 0.4):
        for targets, kind in ((1, "flip"), (2, "flip2")):
            same = flip_matrix(10, rate, generator=seeded(3), targets=targets)
            assert torch.equal(made(kind, rate, 3), same)
        assert torch.equal(made("uniform", rate), uniform_matrix(10, rate))
        assert torch.equal(made("hierarchical", rate), hierarchical_matrix(SUPERCLASSES, rate))
    assert torch.equal(made("none", 0.0), torch.eye(10))


def test_flip2_has_two_wrong_classes_of_half_the_rate():
    for seed in range(20):
        matrix = made("flip2", 0.4, seed)
        for k, row in enumerate(matrix):
            assert sorted(row.tolist()) == pytest.approx([0.0] * 7 + [0.2, 0.2, 0.6])
            assert row[k] == 0.6


def test_kinds_that_draw_nothing_leave_the_generator_alone():
    for kind, rate in (("none", 0.0), ("uniform", 0.4), ("hierarchical", 0.4)):
        generator = seeded(5)
        before = generator.get_state()
        transition_matrix(kind, 10, rate, generator=generator, superclasses=SUPERCLASSES)
        assert torch.equal(generator.get_state(), before)


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    superclasses=st.lists(st.integers(0, 4), min_size=1, max_size=15).map(lambda s: [*s, *s]),
)
def test_rows_are_probabilities_with_the_rate_asked_for(kind, rate, seed, superclasses):
    classes = len(superclasses)
    if kind == "flip2" and classes < 3:
        return
    rate = 0.0 if kind == "none" else rate
    matrix = made(kind, rate, seed, classes, torch.tensor(superclasses))
    assert matrix.shape == (classes, classes)
    assert matrix.dtype == torch.float64
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(1), torch.ones(classes), rtol=0, atol=1e-12)
    wrong = rate * (classes - 1) / classes if kind == "uniform" else rate
    torch.testing.assert_close(matrix.diag(), torch.full((classes,), 1 - wrong), rtol=0, atol=1e-12)
    assert torch.equal(matrix, made(kind, rate, seed, classes, torch.tensor(superclasses)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
@pytest.mark.parametrize("rate", [0.2, 0.4, 0.6])
def test_every_entry_is_reached_within_binomial_bounds(kind, rate):
    each = 5000
    labels = torch.arange(10).repeat(each)
    matrix = made(kind, rate, 1)
    noisy = corrupt(labels, matrix, generator=seeded(2))
    counts = torch.zeros(10, 10).index_put_(
        (labels, noisy.labels), torch.ones(len(labels)), accumulate=True
    )
    # Two tails of 1e-7 each over 12 x 100 entries: a right draw fails once in 4,000 seeds.
    low, high = stats.binom.ppf([[1e-7], [1 - 1e-7]], each, matrix.flatten().numpy())
    assert np.all((counts.flatten().numpy() >= low) & (counts.flatten().numpy() <= high))
    share = (1 - matrix.diag().mean()).item()
    low, high = stats.binom.ppf([1e-7, 1 - 1e-7], len(labels), share)
    assert low <= int(noisy.corrupted.sum()) <= high
    assert torch.equal(noisy.corrupted, noisy.labels != labels)


def test_hierarchical_noise_stays_within_the_superclass():
    labels = torch.arange(10).repeat(1000)
    noisy = corrupt(labels, made("hierarchical", 1.0), generator=seeded())
    assert torch.equal(SUPERCLASSES[noisy.labels], SUPERCLASSES[labels])
    assert noisy.corrupted.all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_labels_and_another_does_not(kind):
    labels = torch.arange(10).repeat(100)
    rate = 0.0 if kind == "none" else 0.5
    draws = [corrupt(labels, made(kind, rate, s), generator=seeded(s)).labels for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2]) == (kind == "none")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), 40])
def test_rates_that_are_no_probability_are_refused(kind, rate):
    with pytest.raises(ConfigurationError, match="rate: expected a probability"):
        made(kind, rate)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(
        ConfigurationError, match=r"kind: expected one of none, .*did you mean 'flip"
    ):
        made("flip3", 0.4)


def test_a_rate_without_a_kind_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"rate: expected 0 for the kind 'none', found 0.4"
    ):
        made("none", 0.4)


def test_hierarchical_noise_needs_the_superclass_of_every_class():
    with pytest.raises(ConfigurationError, match=r"superclasses: .*found none.*cifar100"):
        made("hierarchical", 0.4, superclasses=None)
    with pytest.raises(ConfigurationError, match="one for each of 9 classes, found 10"):
        made("hierarchical", 0.4, classes=9)
    with pytest.raises(ConfigurationError, match=r"shape \[K\], found \[0\]"):
        hierarchical_matrix(torch.zeros(0), 0.4)


def test_a_class_alone_in_its_superclass_has_nothing_to_become():
    alone = torch.tensor([0, 0, 7])
    with pytest.raises(ConfigurationError, match="class 2 alone in superclass 7"):
        hierarchical_matrix(alone, 0.4)
    assert torch.equal(hierarchical_matrix(alone, 0.0), torch.eye(3))


def test_flip2_needs_three_classes():
    with pytest.raises(ConfigurationError, match="targets: expected 1 to 1"):
        made("flip2", 0.4, classes=2)
