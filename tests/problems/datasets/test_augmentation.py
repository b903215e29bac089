"""Batched augmentation against loops over images, and the statistics of its draws."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlo.errors import ConfigurationError, DataError
from problems.datasets.augmentation import (
    Cutout,
    HorizontalFlip,
    Normalize,
    Pipeline,
    RandomCrop,
    cifar_augmentation,
    cifar_normalization,
)

MODES = ("reflect", "constant")  # as torch.nn.functional.pad calls them


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=9, width=7, dtype=torch.uint8):
    return torch.randint(256, (n, channels, height, width), generator=seeded(1)).to(dtype)


PARTS = {
    "crop": RandomCrop(3),
    "zero crop": RandomCrop(3, mode="constant"),
    "flip": HorizontalFlip(0.4),
    "cutout": Cutout(4),
    "normalize": Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
    "pipeline": cifar_augmentation("cifar10", cutout=4),
}


def windows(image, padding, mode):
    """All windows of the padded image by torch's own padding, keyed by what they show."""
    whole = F.pad(image.double(), (padding,) * 4, mode=mode)
    height, width = image.shape[1:]
    return {
        (i, j): whole[:, i : i + height, j : j + width]
        for i in range(2 * padding + 1)
        for j in range(2 * padding + 1)
    }


def offset_of(found, image, padding, mode):
    """Where the window was cut out; the pixels of these images differ from one another."""
    matches = [at for at, w in windows(image, padding, mode).items() if torch.equal(found, w)]
    assert len(matches) == 1
    return matches[0]


shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 5),
        "channels": st.integers(1, 4),
        "height": st.integers(2, 12),
        "width": st.integers(2, 12),
    }
)


@settings(deadline=None, max_examples=40, derandomize=True, database=None)
@given(shapes, st.data(), st.sampled_from(MODES), st.integers(0, 2**32))
def test_a_crop_is_a_window_of_each_padded_image_at_its_drawn_offset(shape, data, mode, seed):
    smallest = min(shape["height"], shape["width"])
    padding = data.draw(st.integers(1, smallest - 1 if mode == "reflect" else smallest + 3))
    x = images(**shape)
    found = RandomCrop(padding, mode=mode)(x, seeded(seed))
    down, right = torch.randint(2 * padding + 1, (2, len(x)), generator=seeded(seed)).tolist()
    whole = F.pad(x.double(), (padding,) * 4, mode=mode)
    for image, i, j, cropped in zip(whole, down, right, found, strict=True):
        window = image[:, i : i + shape["height"], j : j + shape["width"]]
        assert torch.equal(cropped.double(), window)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("mode", MODES)
def test_all_offsets_of_a_crop_are_equally_likely(mode):
    padding, count = 2, 5000
    image = torch.arange(1.0, 31).view(1, 1, 5, 6)
    found = RandomCrop(padding, mode=mode)(image.expand(count, 1, 5, 6), seeded(4))
    distinct, times = found.unique(dim=0, return_counts=True)
    places = {offset_of(window, image[0], padding, mode) for window in distinct}
    assert places == {(i, j) for i in range(5) for j in range(5)}
    assert stats.chisquare(times.tolist()).pvalue > 1e-3


def test_crops_of_one_batch_are_independent_of_one_another_and_between_directions():
    image = torch.arange(1.0, 31).view(1, 1, 5, 6)
    found = RandomCrop(1)(image.expand(3000, 1, 5, 6), seeded(6))
    at = [offset_of(window, image[0], 1, "reflect") for window in found]
    pairs = collections.Counter(zip([i for i, _ in at[:-1]], [j for _, j in at[1:]], strict=True))
    assert len(pairs) == 9
    assert stats.chisquare([*pairs.values()]).pvalue > 1e-3


@settings(deadline=None, max_examples=20, derandomize=True, database=None)
@given(shapes, st.integers(0, 2**32), st.floats(0, 1))
def test_a_flip_turns_whole_images_left_to_right(shape, seed, probability):
    x = images(**shape)
    found = HorizontalFlip(probability)(x, seeded(seed))
    draws = torch.rand(len(x), generator=seeded(seed), dtype=torch.float64)
    for image, draw, flipped in zip(x.numpy(), draws.tolist(), found.numpy(), strict=True):
        expected = image[:, :, ::-1] if draw < probability else image
        assert np.array_equal(flipped, expected)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_flips_are_as_frequent_as_they_are_said_to_be(probability):
    count = 4000
    x = torch.tensor([0, 1], dtype=torch.uint8).expand(count, 1, 1, 2)
    flipped = int((HorizontalFlip(probability)(x, seeded(3))[:, 0, 0, 0] == 1).sum())
    assert stats.binomtest(flipped, count, probability).pvalue > 1e-3


@settings(deadline=None, max_examples=40, derandomize=True, database=None)
@given(shapes, st.integers(1, 20), st.integers(0, 2**32))
def test_a_cutout_is_the_square_of_a_loop_over_images(shape, size, seed):
    x = images(**shape, dtype=torch.float64) + 1
    found = Cutout(size)(x, seeded(seed))
    draw = seeded(seed)
    rows = torch.randint(shape["height"], (len(x),), generator=draw).tolist()
    columns = torch.randint(shape["width"], (len(x),), generator=draw).tolist()
    expected = x.numpy().copy()
    for image, i, j in zip(expected, rows, columns, strict=True):
        top, left = i - size // 2, j - size // 2
        image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_a_cutout_inside_an_image_has_the_size_it_is_said_to_have(size):
    found = Cutout(size)(torch.ones(400, 2, 33, 35), seeded(2))
    zeros = (found == 0).sum(dim=(2, 3))
    assert torch.equal(zeros[:, 0], zeros[:, 1])
    assert zeros.max() == size**2
    assert zeros.min() >= ((size + 1) // 2) ** 2  # the quarter of one in a corner


def test_centres_of_cutouts_are_all_pixels_alike():
    found = Cutout(1)(torch.ones(6000, 1, 4, 5), seeded(8))
    times = (found == 0).sum(dim=(0, 1)).flatten().tolist()
    assert len(times) == 20
    assert sum(times) == 6000
    assert stats.chisquare(times).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_normalization_is_that_of_numpy_in_double_precision(dtype):
    x = images(dtype=dtype)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    found = Normalize(mean, std)(x, seeded())
    unit = 255 if dtype == torch.uint8 else 1
    shown = x.numpy().astype(np.float64) / unit
    expected = (shown - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_the_constants_of_cifar_are_those_of_the_literature():
    grey = torch.full((1, 3, 1, 1), 100, dtype=torch.uint8)
    ten, hundred = (cifar_normalization(f"cifar{k}")(grey).flatten() for k in (10, 100))
    expected = torch.tensor([(100 - 125.3) / 63.0, (100 - 123.0) / 62.1, (100 - 113.9) / 66.7])
    torch.testing.assert_close(ten, expected.float())
    means, stds = np.array([0.5071, 0.4867, 0.4408]), np.array([0.2675, 0.2565, 0.2761])
    np.testing.assert_allclose(hundred.numpy(), (100 / 255 - means) / stds, rtol=1e-6)


def test_normalization_may_come_before_or_after_crop_and_flip_if_the_crop_reflects():
    x, moved = images(20, height=32, width=32), (RandomCrop(4), HorizontalFlip())
    normalize = cifar_normalization("cifar100")
    first = Pipeline(normalize, *moved)(x, seeded(2))
    assert torch.equal(first, Pipeline(*moved, normalize)(x, seeded(2)))
    assert torch.equal(first, cifar_augmentation("cifar100")(x, seeded(2)))
    whole = cifar_augmentation("cifar100", cutout=8)(x, seeded(2))
    cut = whole != first
    assert (whole[cut] == 0).all()
    assert 0 < cut.sum(dim=(1, 2, 3)).max() <= 3 * 64


def test_parts_follow_one_another_on_one_generator():
    x, draw = images(), seeded(5)
    step_by_step = HorizontalFlip()(RandomCrop(2)(x, draw), draw)
    assert torch.equal(Pipeline(RandomCrop(2), HorizontalFlip())(x, seeded(5)), step_by_step)
    assert torch.equal(Pipeline()(x, seeded(5)), x)


@pytest.mark.parametrize("part", PARTS)
def test_equal_seeds_give_equal_images_and_the_input_and_the_global_generator_stay(part):
    x, random = images(), torch.get_rng_state()
    before = x.clone()
    first, second, third = (PARTS[part](x, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert part == "normalize" or not torch.equal(first, third)
    assert torch.equal(random, torch.get_rng_state())
    first.zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_drawn_depends_on_the_number_and_size_of_the_images_alone(part):
    states = []
    for dtype, channels_last, default in [
        (torch.uint8, False, torch.float64),
        (torch.float32, True, torch.float32),
        (torch.float64, False, torch.float32),
    ]:
        torch.set_default_dtype(default)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        draw = seeded(11)
        PARTS[part](images(dtype=dtype).contiguous(memory_format=layout), draw)
        states.append(draw.get_state())
    draw = seeded(11)
    PARTS[part](torch.empty(6, 3, 9, 7, device="meta"), draw)
    states.append(draw.get_state())
    assert all(torch.equal(states[0], state) for state in states)


@pytest.mark.parametrize("part", PARTS)
def test_images_of_any_layout_and_a_batch_of_one_are_taken(part):
    x = images()
    laid = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(PARTS[part](laid, seeded()), PARTS[part](x, seeded()))
    assert PARTS[part](x[:1], seeded()).shape == (1, 3, 9, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "padding: expected at least 1 pixel, found 0"),
        (lambda: RandomCrop(mode="mirror"), "mode: expected 'reflect' or 'constant'"),
        (lambda: RandomCrop(7)(images(), seeded()), "at most 6 for images of 9 by 7.*found 7"),
        (lambda: RandomCrop(7)(images(height=7, width=9), seeded()), "at most 6.*7 by 9"),
        (lambda: HorizontalFlip(1.01), "probability.*found 1.01"),
        (lambda: HorizontalFlip(-0.1), r"probability.*found -0.1"),
        (lambda: HorizontalFlip(float("nan")), "probability.*found nan"),
        (lambda: Cutout(0), "size: expected at least 1 pixel, found 0"),
        (lambda: cifar_augmentation("cifar10", cutout=-2), "size.*found -2"),
        (lambda: cifar_augmentation("mnist"), "'cifar10', 'cifar100', found 'mnist'"),
        (lambda: Normalize((0.5,), (0.0,)), "positive deviation"),
        (lambda: Normalize((0.5, 0.5), (0.1,)), r"for each channel.*\(0.1,\)"),
    ],
)
def test_settings_outside_their_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("part", "x", "message"),
    [
        ("normalize", images(channels=1), r"\[n, 3, ...\].*found shape \[6, 1, 9, 7\]"),
        ("normalize", torch.ones(3), r"found shape \[3\]"),
        ("normalize", images(dtype=torch.int64), r"uint8.*found torch.int64"),
        ("crop", images()[0], r"\[n, C, H, W\], found shape \[3, 9, 7\]"),
        ("flip", images()[0], r"\[n, C, H, W\]"),
        ("cutout", images()[0], r"\[n, C, H, W\]"),
    ],
)
def test_what_are_no_images_of_these_channels_is_refused(part, x, message):
    with pytest.raises(DataError, match=message):
        PARTS[part](x, seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("part", PARTS)
def test_an_accelerator_gives_the_images_of_the_host(part):
    x = images()
    found = PARTS[part](x.cuda(), seeded(3)).cpu()
    torch.testing.assert_close(found, PARTS[part](x, seeded(3)), rtol=1e-6, atol=1e-6)
