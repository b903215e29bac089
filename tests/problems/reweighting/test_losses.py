"""Losses and class weights against exact arithmetic."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from mlo.errors import ConfigurationError
from problems.reweighting.losses import (
    class_balanced_weights,
    example_losses,
    focal_loss,
    weighted_mean,
)

GAMMAS = [0.0, 0.5, 1.0, 2.0, 3.5]
FLOATS = st.floats(-30, 30)


def exact_focal(margins, gamma, *, digits=60):
    """Value and slope by the margin of two-class examples, to many digits.

    With margin s the right class has p = 1 / (1 + e^-s), and l = -ln p.
    """
    with localcontext() as context:
        context.prec = digits
        value, slopes = Decimal(0), []
        for margin in margins:
            power = (-Decimal(margin)).exp()
            p, q = 1 / (1 + power), power / (1 + power)
            loss = (1 + power).ln()
            factor = q ** Decimal(gamma) if gamma else Decimal(1)
            value += factor * loss
            # dq/ds = -p q and dl/ds = -q
            slopes.append(-factor * (Decimal(gamma) * p * loss + q))
        n = len(margins)
        return float(value / n), [float(slope / n) for slope in slopes]


def two_classes(margins, dtype=torch.float64):
    """Logits whose right class, 0 and 1 in turn, is ahead by the margins."""
    found = torch.zeros(len(margins), 2, dtype=dtype)
    labels = torch.arange(len(margins)) % 2
    found[torch.arange(len(margins)), labels] = torch.tensor(margins, dtype=dtype)
    return found.requires_grad_(), labels


def focal_by_margin(margins, gamma, dtype=torch.float64):
    logits, labels = two_classes(margins, dtype)
    value = focal_loss(logits, labels, gamma)
    (slopes,) = torch.autograd.grad(value, logits)
    return float(value.detach()), slopes[torch.arange(len(margins)), labels].tolist()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("margins", [[0.3, -1.2, 2.0], [-20.0, 9.0], [25.0], [-300.0, 12.0, 0.0]])
def test_focal_loss_and_its_slope_are_the_formula(gamma, margins):
    value, slopes = focal_by_margin(margins, gamma)
    want, wanted = exact_focal(margins, gamma)
    # A margin of 25 leaves a loss of 1e-11, which cross-entropy itself knows to 1e-5 only.
    near = max(1e-12, 1e-15 * float(torch.tensor(max(margins)).clamp(min=0).exp()))
    assert value == pytest.approx(want, rel=near * 10, abs=1e-300)
    assert slopes == pytest.approx(wanted, rel=near * 10, abs=1e-300)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-15, 8), min_size=1, max_size=5), st.sampled_from(GAMMAS))
def test_focal_loss_is_the_formula_for_any_margins(margins, gamma):
    value, slopes = focal_by_margin(margins, gamma)
    want, wanted = exact_focal(margins, gamma, digits=40)
    assert value == pytest.approx(want, rel=1e-10)
    assert slopes == pytest.approx(wanted, rel=1e-10, abs=1e-14)


def test_focal_loss_of_several_classes_uses_the_right_one():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 3, 1, 2, 2, 0])
    p = torch.softmax(logits, 1)[torch.arange(6), labels]
    for gamma in GAMMAS:
        want = ((1 - p) ** gamma * -p.log()).mean()
        torch.testing.assert_close(focal_loss(logits, labels, gamma), want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(("dtype", "margin"), [(torch.float32, 14.0), (torch.float64, 34.0)])
def test_focal_loss_of_confident_predictions_is_finite(gamma, dtype, margin):
    value, slopes = focal_by_margin([margin, -1.0], gamma, dtype)
    want, wanted = exact_focal([margin, -1.0], gamma)
    assert value == pytest.approx(want, rel=1e-5)
    assert slopes == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_the_focal_factor_loses_no_digits_that_the_loss_has(dtype, near):
    for margin in (3.0, 9.0, 12.0):
        logits, labels = two_classes([margin], dtype)
        (loss,) = example_losses(logits, labels).tolist()
        with localcontext() as context:
            context.prec = 50
            want = float((1 - (-Decimal(loss)).exp()) ** 2 * Decimal(loss))
        value = float(focal_loss(logits, labels, 2.0).detach())
        assert value == pytest.approx(want, rel=near, abs=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "gamma",
    [
        0.0,
        0.3,
        0.5,
        1.0,
        1.5,
        2.0,
    ],
)
def test_where_the_loss_is_zero_exactly_so_is_the_slope(gamma, dtype):
    # d/dl of (1 - e^-l)^gamma l goes to zero as l^gamma does, whatever gamma > 0 is.
    value, slopes = focal_by_margin([200.0, 1e4], gamma, dtype)
    assert value == 0
    assert slopes == [0.0, 0.0]


@pytest.mark.parametrize(
    "gamma",
    [
        -0.1,
        -2.0,
        float("-inf"),
        float("nan"),
    ],
)
def test_a_negative_focusing_exponent_is_refused(gamma):
    with pytest.raises(ConfigurationError, match=f"gamma.*at least 0, found {gamma}"):
        focal_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), gamma)


def test_example_losses_are_the_negative_logarithms_of_the_probabilities():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    want = [-torch.log(torch.softmax(row, 0)[k]) for row, k in zip(logits, labels, strict=True)]
    torch.testing.assert_close(example_losses(logits, labels), torch.stack(want))


BETAS = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-9, 1 - 2.0**-53]


def exact_class_weights(counts, beta):
    """Scaled to sum to the number of classes, in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        share = Decimal(beta)  # the value of the double
        raw = [(1 - share) / (1 - share**n) for n in counts]
        return [float(w * len(counts) / sum(raw)) for w in raw]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    "counts",
    [[1, 2, 3], [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], [1, 10**6], [7], [4, 4]],
)
def test_class_weights_are_the_formula(counts, beta):
    found = class_balanced_weights(counts, beta)
    assert found.dtype is torch.float64
    assert found.tolist() == pytest.approx(exact_class_weights(counts, beta), rel=1e-13)
    assert class_balanced_weights(tuple(counts), beta).tolist() == found.tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.fractions(0, Fraction(99, 100)))
def test_class_weights_are_the_formula_in_fractions(counts, beta):
    share = Fraction(float(beta))
    raw = [1 / sum(share**power for power in range(n)) for n in counts]  # (1 - b) / (1 - b^n)
    want = [float(w * len(counts) / sum(raw)) for w in raw]
    found = class_balanced_weights(counts, float(beta))
    assert found.tolist() == pytest.approx(want, rel=1e-12)


def test_beta_zero_weighs_alike_and_beta_near_one_by_the_inverse_count():
    counts = [3, 50, 1000]
    assert class_balanced_weights(counts, 0.0).tolist() == [1.0, 1.0, 1.0]
    inverse = torch.tensor([1 / n for n in counts])
    torch.testing.assert_close(
        class_balanced_weights(counts, 1 - 1e-12), inverse / inverse.mean(), rtol=1e-8, atol=0
    )


def test_class_weights_have_the_default_dtype():
    torch.set_default_dtype(torch.float32)
    found = class_balanced_weights([5000, 50], 0.9999)
    assert found.dtype is torch.float32
    # Rounded once, at the end.
    want = torch.tensor(exact_class_weights([5000, 50], 0.9999), dtype=torch.float64).float()
    torch.testing.assert_close(found, want, rtol=1e-7, atol=0)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ConfigurationError, match=f"beta.*at least 0 and below 1, found {beta}"):
        class_balanced_weights([1, 2], beta)


def test_empty_classes_are_refused_and_counted():
    with pytest.raises(ConfigurationError, match=r"counts.*found 2 empty classes"):
        class_balanced_weights([0, 5, 0], 0.9)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 9)), min_size=1, max_size=7), st.booleans()
)
def test_the_weighted_mean_is_the_sum_over_the_number(pairs, unit_mean):
    weights, found = ([Fraction(pair[k]) for pair in pairs] for k in (0, 1))
    over = sum(weights) if unit_mean else len(pairs)
    want = sum(w * x for w, x in zip(weights, found, strict=True)) / over
    value = weighted_mean(
        *(torch.tensor([float(v) for v in part]) for part in (weights, found)), unit_mean=unit_mean
    )
    assert float(value) == pytest.approx(float(want), rel=1e-12)


def test_the_weighted_mean_is_differentiated_through_the_division():
    weights, found = torch.rand(5).add(0.1).requires_grad_(), torch.rand(5)
    (slope,) = torch.autograd.grad(weighted_mean(weights, found, unit_mean=True), weights)
    total = weights.detach().sum()
    mean = (weights.detach() * found).sum() / total
    torch.testing.assert_close(slope, (found - mean) / total)
