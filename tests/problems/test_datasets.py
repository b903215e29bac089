from __future__ import annotations

import sys

import pytest
import torch

from mlo.errors import ConfigurationError, DataError
from problems.datasets import (
    corrupt,
    flip_matrix,
    flip_noise,
    load_digits,
    long_tail,
    long_tail_counts,
    stratified_split,
    stream,
    uniform_matrix,
    uniform_noise,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split(labels: torch.Tensor, seed: int = 0, per_class: int = 20, test: float = 0.25):
    return stratified_split(
        labels, validation_per_class=per_class, test_fraction=test, generator=seeded(seed)
    )


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    return load_digits()


def test_digits_are_scaled_images_with_integer_labels(digits):
    images, labels = digits
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert (images.min(), images.max()) == (0, 1)
    assert labels.unique().tolist() == list(range(10))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"mlo-engine\[data\]"):
        load_digits()


def test_split_is_disjoint_and_complete_for_every_seed(digits):
    _, labels = digits
    for seed in range(50):
        parts = torch.cat(split(labels, seed))
        assert torch.equal(parts.sort().values, torch.arange(len(labels)))


def test_split_balances_validation_and_keeps_proportions_in_test(digits):
    _, labels = digits
    parts = split(labels, per_class=7)
    assert torch.bincount(labels[parts.validation]).tolist() == [7] * 10
    sizes = torch.bincount(labels).tolist()
    assert torch.bincount(labels[parts.test]).tolist() == [round(0.25 * n) for n in sizes]


def test_split_repeats_with_its_seed_and_differs_with_another(digits):
    _, labels = digits
    first = split(labels, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, split(labels, 3), strict=True))
    assert not torch.equal(first.test, split(labels, 4).test)


def test_test_part_does_not_depend_on_the_size_of_validation(digits):
    _, labels = digits
    assert torch.equal(split(labels, per_class=5).test, split(labels, per_class=30).test)


def test_split_refuses_a_class_that_is_too_small():
    labels = torch.tensor([0] * 40 + [1] * 21)
    with pytest.raises(DataError, match=r"class 1 has 21 examples.*validation_per_class"):
        split(labels, per_class=18)


@pytest.mark.parametrize("sizes", [{"per_class": 0}, {"test": 0.0}, {"test": 1.0}])
def test_split_refuses_sizes_outside_their_range(sizes):
    with pytest.raises(ConfigurationError, match=r"validation_per_class|test_fraction"):
        split(torch.arange(100) % 2, **sizes)


@pytest.mark.parametrize("labels", [torch.zeros(0, dtype=torch.int64), torch.eye(3)])
def test_split_refuses_what_are_no_labels(labels):
    with pytest.raises(DataError, match=r"labels: expected one class per example"):
        split(labels)


@pytest.mark.parametrize("targets", [1, 2, 9])
def test_flip_matrix_has_no_fixed_point_and_the_rate_asked_for(targets):
    for seed in range(20):
        matrix = flip_matrix(10, 0.4, generator=seeded(seed), targets=targets)
        wrong = matrix - torch.diag(matrix.diag())
        torch.testing.assert_close(matrix.diag(), torch.full((10,), 0.6, dtype=torch.float64))
        assert (wrong > 0).sum(1).tolist() == [targets] * 10
        torch.testing.assert_close(matrix.sum(1), torch.ones(10, dtype=torch.float64))


def test_uniform_matrix_of_a_hand_worked_case():
    expected = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(uniform_matrix(2, 0.5), expected)


@pytest.mark.parametrize(
    ("noise", "share"), [(flip_noise, 0.4), (uniform_noise, 0.4 * 9 / 10)], ids=["flip", "uniform"]
)
def test_noise_reaches_its_rate_and_marks_exactly_what_it_changed(noise, share):
    labels = torch.arange(50_000) % 10
    before = labels.clone()
    noisy = noise(labels, 0.4, classes=10, generator=seeded())
    assert torch.equal(labels, before)
    assert torch.equal(noisy.corrupted, noisy.labels != labels)
    # Five standard deviations of a mean of 50,000 draws.
    assert noisy.corrupted.double().mean().item() == pytest.approx(share, abs=0.011)


def test_flip_noise_sends_a_class_to_one_other_class():
    labels = torch.arange(10_000) % 10
    noisy = flip_noise(labels, 0.4, classes=10, generator=seeded())
    for label in range(10):
        assert len(noisy.labels[noisy.corrupted & (labels == label)].unique()) == 1


@pytest.mark.parametrize("noise", [flip_noise, uniform_noise])
def test_noise_at_rate_zero_changes_nothing(noise):
    labels = torch.arange(100) % 10
    noisy = noise(labels, 0.0, classes=10, generator=seeded())
    assert torch.equal(noisy.labels, labels)
    assert not noisy.corrupted.any()


@pytest.mark.parametrize("noise", [flip_noise, uniform_noise])
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_noise_refuses_a_rate_that_is_no_probability(noise, rate):
    with pytest.raises(ConfigurationError, match="rate: expected a probability"):
        noise(torch.zeros(4, dtype=torch.int64), rate, classes=2, generator=seeded())


@pytest.mark.parametrize("targets", [0, 10])
def test_flip_refuses_more_wrong_classes_than_there_are(targets):
    with pytest.raises(ConfigurationError, match="targets: expected 1 to 9"):
        flip_matrix(10, 0.4, generator=seeded(), targets=targets)


def test_corrupt_refuses_a_label_without_a_row():
    with pytest.raises(DataError, match="expected classes 0 to 1"):
        corrupt(torch.tensor([0, 2]), torch.eye(2), generator=seeded())


# Sizes of the long-tailed CIFAR sets after 10 validation images of each class are set aside.
@pytest.mark.parametrize(
    ("largest", "classes", "factor", "total"),
    [
        (4990, 10, 0.005, 11_177),
        (4990, 10, 0.01, 12_380),
        (4990, 10, 0.02, 13_967),
        (4990, 10, 0.05, 16_989),
        (4990, 10, 0.1, 20_391),
        (490, 100, 0.005, 9_304),
        (490, 100, 0.01, 10_626),
        (490, 100, 0.02, 12_354),
        (490, 100, 0.05, 15_594),
        (490, 100, 0.1, 19_183),
    ],
)
def test_long_tail_has_the_sizes_of_the_literature(largest, classes, factor, total):
    counts = long_tail_counts(largest, classes, factor)
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)


def test_long_tail_keeps_the_counts_and_marks_what_it_removed(digits):
    _, labels = digits
    subset = long_tail(labels, 0.05, generator=seeded())
    smallest = int(torch.bincount(labels).min())
    assert torch.bincount(labels[subset.kept]).tolist() == long_tail_counts(smallest, 10, 0.05)
    assert torch.equal(subset.kept, (~subset.removed).nonzero().squeeze(1))


def test_long_tail_refuses_to_empty_a_class():
    with pytest.raises(ConfigurationError, match="every class to keep an example, found 1 empty"):
        long_tail_counts(10, 2, 0.05)


@pytest.mark.parametrize(("classes", "factor"), [(1, 0.5), (2, 0.0), (2, 1.5)])
def test_long_tail_refuses_numbers_outside_their_range(classes, factor):
    with pytest.raises(ConfigurationError, match="classes, factor"):
        long_tail_counts(10, classes, factor)


def test_stream_hands_out_every_example_once_with_its_index():
    x, y = torch.randn(10, 3), torch.arange(10) * 2
    batches = list(stream(x, y, batch_size=4, generator=seeded(), drop_last=False))
    assert [len(batch[0]) for batch in batches] == [4, 4, 2]
    for inputs, labels, index in batches:
        assert torch.equal(inputs, x[index])
        assert torch.equal(labels, y[index])
    index = torch.cat([batch[2] for batch in batches])
    assert torch.equal(index.sort().values, torch.arange(10))


def test_stream_follows_its_own_generator_only():
    x, y = torch.randn(10, 3), torch.arange(10)

    def orders(seed: int) -> list[torch.Tensor]:
        loader = stream(x, y, batch_size=5, generator=seeded(seed))
        return [batch[2] for _ in range(2) for batch in loader]

    first = orders(0)
    state = torch.get_rng_state()
    again = orders(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(torch.cat(first[:2]), torch.cat(first[2:]))
    assert not torch.equal(torch.cat(first), torch.cat(orders(1)))


@pytest.mark.parametrize("batch_size", [0, 11])
def test_stream_refuses_a_batch_size_that_leaves_no_batch(batch_size):
    with pytest.raises(ConfigurationError, match="batch_size: expected 1 to 10"):
        stream(torch.ones(10, 1), torch.ones(10), batch_size=batch_size, generator=seeded())


def test_stream_refuses_inputs_and_labels_of_different_length():
    with pytest.raises(DataError, match="found 3 inputs and 4 labels"):
        stream(torch.ones(3, 1), torch.ones(4), batch_size=1, generator=seeded())
