from __future__ import annotations

import math

import pytest
import torch

from mlo.errors import ConfigurationError, DataError
from problems.lfm.weights import (
    example_weights,
    label_similarity,
    mistakes,
    visual_similarity,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("normalize", [False, True])
def test_visual_similarity_is_the_softmax_written_out(temperature, normalize):
    train, valid = draw(3, 4), draw(5, 4, seed=1)

    def product(a: list[float], b: list[float]) -> float:
        length = math.hypot(*a) * math.hypot(*b) if normalize else 1.0
        return sum(p * q for p, q in zip(a, b, strict=True)) / length / temperature

    expected = []
    for e in train.tolist():
        powers = [math.exp(product(e, other)) for other in valid.tolist()]
        expected.append([power / sum(powers) for power in powers])
    close(visual_similarity(train, valid, temperature=temperature, normalize=normalize), expected)


def test_visual_similarity_of_long_features_stays_finite():
    x = visual_similarity(1e4 * draw(3, 4), 1e4 * draw(5, 4, seed=1))
    torch.testing.assert_close(x.sum(1), torch.ones(3, dtype=torch.float64))


def test_visual_similarity_of_a_zero_feature_is_even():
    close(visual_similarity(torch.zeros(1, 4).double(), draw(5, 4), normalize=True), [[0.2] * 5])


def test_label_similarity_marks_equal_classes():
    z = label_similarity(torch.tensor([0, 2]), torch.tensor([2, 0, 1]))
    assert z.tolist() == [[False, True, False], [True, False, False]]


def test_mistakes_are_the_cross_entropy_of_each_example():
    logits, labels = draw(4, 3), torch.tensor([0, 2, 1, 1])
    expected = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    close(mistakes(logits, labels), expected)


def test_example_weights_are_the_sigmoid_of_the_sum_written_out():
    n, m = 4, 6
    x, r, u = draw(n, m).softmax(1), draw(m, seed=1), draw(m, seed=2).abs()
    z = label_similarity(torch.arange(n) % 3, torch.arange(m) % 3)
    expected = []
    for i in range(n):
        total = sum(float(r[j] * x[i, j] * z[i, j] * u[j]) for j in range(m))
        expected.append(1 / (1 + math.exp(-total)))
    close(example_weights(r, x, z, u), expected)


def test_weight_is_one_half_exactly_without_a_validation_example_of_the_class():
    x, r, u = draw(2, 3).softmax(1), draw(3, seed=1), draw(3, seed=2).abs()
    z = label_similarity(torch.tensor([7, 1]), torch.tensor([0, 1, 2]))
    weights = example_weights(r, x, z, u)
    assert weights[0] == 0.5
    assert weights[1] != 0.5


def test_weights_have_the_right_derivatives():
    labels, valid_labels = torch.arange(4) % 2, torch.arange(5) % 2

    def weights(train, valid, r, logits):
        x = visual_similarity(train, valid, temperature=0.5, normalize=True)
        u = mistakes(logits, valid_labels)
        return example_weights(r, x, label_similarity(labels, valid_labels), u)

    inputs = (draw(4, 3), draw(5, 3, seed=1), draw(5, seed=2), draw(5, 2, seed=3))
    assert torch.autograd.gradcheck(weights, [part.requires_grad_() for part in inputs])


@pytest.mark.parametrize("shapes", [((3, 4), (5, 6)), ((3, 4, 1), (5, 4, 1)), ((4,), (4,))])
def test_features_that_do_not_match_are_refused(shapes):
    with pytest.raises(DataError, match="train_features, valid_features"):
        visual_similarity(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ConfigurationError, match="temperature"):
        visual_similarity(torch.ones(1, 1), torch.ones(1, 1), temperature=temperature)


@pytest.mark.parametrize(
    "shapes",
    [((2,), (4, 3), (4, 3), (3,)), ((3,), (4, 3), (3, 4), (3,)), ((3,), (4, 3), (4, 3), (3, 1))],
)
def test_parts_of_different_batches_are_refused(shapes):
    with pytest.raises(DataError, match="coefficients, x, z, u: expected shapes"):
        example_weights(*(torch.ones(shape) for shape in shapes))
