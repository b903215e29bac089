"""Colours of whole batches against formulas for one image, and the statistics of their draws."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from problems.datasets.photographs import ColorJitter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Each part, on one image [3, H, W] in numpy.
def by_brightness(image, f):
    return np.clip(image * f, 0, 1)


def grey(image):
    return np.tensordot([0.299, 0.587, 0.114], image, 1)


def by_contrast(image, f):
    return np.clip(f * image + (1 - f) * grey(image).mean(), 0, 1)


def by_saturation(image, f):
    return np.clip(f * image + (1 - f) * grey(image), 0, 1)


def by_hue(image, d):
    def pixel(rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((h + d) % 1, s, v)

    return np.apply_along_axis(pixel, 0, image)


REFERENCES = {
    "brightness": by_brightness,
    "contrast": by_contrast,
    "saturation": by_saturation,
    "hue": by_hue,
}


def coloured(n=6):
    """Noise, with pixels that have no hue, full colours, black and white among them."""
    x = torch.rand(n, 3, 5, 6, generator=seeded(2), dtype=torch.float64)
    x[:, :, 0, :4] = x[:, :1, 0, :4]
    corners = torch.tensor([*itertools.product((0.0, 1.0), repeat=3)]).T
    x[:, :, 1, :] = corners[:, :6]
    x[:, :, 2, :2] = corners[:, 6:]
    return x


def drawn_colours(n, seed, strengths):
    """Amounts [n, 4] and orders [n, 4] from the numbers that a call draws."""
    amounts, orders = torch.rand(2, 4, n, generator=seeded(seed), dtype=torch.float64).numpy()
    low = [*(max(0.0, 1 - s) for s in strengths[:3]), -strengths[3]]
    high = [*(1 + s for s in strengths[:3]), strengths[3]]
    amounts = np.array(low) + (np.array(high) - low) * amounts.T
    return amounts, np.argsort(orders.T, axis=1)


@pytest.mark.parametrize("part", REFERENCES)
@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_each_part_of_the_colours_is_its_formula(part, strength):
    x = coloured()
    strengths = {name: strength if name == part else 0.0 for name in REFERENCES}
    found = ColorJitter(**strengths)(x, seeded(3)).numpy()
    amounts, _ = drawn_colours(len(x), 3, [*strengths.values()])
    for image, amount, changed in zip(x.numpy(), amounts, found, strict=True):
        expected = REFERENCES[part](image, amount[[*REFERENCES].index(part)])
        np.testing.assert_allclose(changed, expected, rtol=0, atol=1e-12)
        assert np.abs(changed - image).max() > 1e-3


@settings(deadline=None, max_examples=10, derandomize=True, database=None)
@given(
    st.tuples(*[st.sampled_from([0.0, 0.3, 0.8, 1.5])] * 3, st.sampled_from([0.0, 0.1, 0.5])),
    st.integers(0, 2**32),
)
def test_the_parts_follow_one_another_in_the_order_drawn_for_each_image(strengths, seed):
    x = coloured()
    found = ColorJitter(*strengths)(x, seeded(seed)).numpy()
    drawn = drawn_colours(len(x), seed, strengths)
    for image, amounts, order, changed in zip(x.numpy(), *drawn, found, strict=True):
        expected = image
        for part in order:
            expected = [*REFERENCES.values()][part](expected, amounts[part])
        np.testing.assert_allclose(changed, expected, rtol=0, atol=1e-10)


def test_known_colours_come_out_as_known():
    half = torch.tensor([0.5, 0.5, 0.5, 0.5]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    same = ColorJitter(0, 0.9, 0.9, 0.5)(half, seeded())  # grey has neither hue nor contrast
    torch.testing.assert_close(same, half, rtol=0, atol=1e-15)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(4000, 3, 1, 1)
    turned = ColorJitter(0, 0, 0, 1 / 3)(red, seeded(1))[:, :, 0, 0]
    # A third of the circle either way from red: blue to green, each amount alike.
    assert (turned.amax(1) == 1).all()
    turn = torch.where(turned[:, 2] > 0, -1, 1) * (turned[:, 1:].sum(1) + 1 - turned[:, 0]) / 6
    assert stats.kstest(turn.numpy(), stats.uniform(-1 / 3, 2 / 3).cdf).pvalue > 1e-3


def test_factors_are_uniform_around_one_and_never_negative():
    x = torch.full((4000, 3, 1, 1), 0.25)
    for strength, low in ((0.4, 0.6), (2.0, 0.0)):
        factor = ColorJitter(strength, 0, 0, 0)(x, seeded(9))[:, 0, 0, 0] / 0.25
        law = stats.uniform(low, 1 + strength - low)
        assert stats.kstest(factor.numpy(), law.cdf).pvalue > 1e-3


def test_all_orders_of_the_colours_are_equally_likely():
    _, orders = drawn_colours(6000, 5, (0, 0, 0, 0))
    times = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(times) == 24
    assert stats.chisquare(times).pvalue > 1e-3
