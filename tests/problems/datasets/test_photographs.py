"""Boxes of photographs against loops over images, and what boxes and colours have in common."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlo.errors import ConfigurationError, DataError
from problems.datasets.photographs import ColorJitter, RandomResizedCrop

PARTS = {"boxes": RandomResizedCrop(8), "colours": ColorJitter()}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=9, width=7, dtype=torch.uint8):
    """Bytes, or numbers from 0 to 1."""
    x = torch.randint(256, (n, channels, height, width), generator=seeded(1))
    return x.to(dtype) if dtype in (torch.uint8, torch.int64) else (x / 255).to(dtype)


def box_by_loop(tries, place, sides, scale, ratio):
    """Top, left, height, width by the definition, from the numbers drawn for one image."""
    height, width = sides
    for u, v in tries:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u)
        shape = math.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * v)
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 1 <= h <= height and 1 <= w <= width:
            top, left = int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1))
            return top, left, h, w
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    h, w = max(h, 1), max(w, 1)
    return (height - h) // 2, (width - w) // 2, h, w


@settings(deadline=None, max_examples=25, derandomize=True, database=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([(0.08, 1.0), (0.5, 0.5), (0.9, 1.0), (0.001, 0.01)]),
    st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (2.0, 5.0)]),
    st.integers(0, 2**32),
)
def test_each_image_is_its_box_interpolated_by_torch(shape, size, scale, ratio, seed):
    x = torch.rand(shape, generator=seeded(1), dtype=torch.float64)
    found = RandomResizedCrop(size, scale, ratio)(x, seeded(seed))
    draw, n = seeded(seed), len(x)
    tries = torch.rand(2, 10, n, generator=draw, dtype=torch.float64).permute(2, 1, 0).tolist()
    places = torch.rand(2, n, generator=draw, dtype=torch.float64).T.tolist()
    for image, each, place, cut in zip(x, tries, places, found, strict=True):
        top, left, h, w = box_by_loop(each, place, shape[2:], scale, ratio)
        box = image[None, :, top : top + h, left : left + w]
        expected = F.interpolate(box, size, mode="bilinear", align_corners=False, antialias=False)
        torch.testing.assert_close(cut, expected[0], rtol=0, atol=1e-12)


def test_the_box_of_a_whole_image_gives_the_image_itself():
    whole = RandomResizedCrop((9, 7), scale=(1.0, 1.0), ratio=(7 / 9, 7 / 9))
    for dtype in (torch.float64, torch.float32):
        assert torch.equal(whole(images(dtype=dtype), seeded()), images(dtype=dtype))
    found = whole(images(), seeded())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images().float() / 255, rtol=0, atol=1e-7)


def test_twice_the_size_gives_the_quarters_known_from_the_formula():
    row = torch.tensor([[[[0.0, 1.0]]]])
    found = RandomResizedCrop((1, 4), scale=(1.0, 1.0), ratio=(2.0, 2.0))(row, seeded())
    assert found.flatten().tolist() == [0.0, 0.25, 0.75, 1.0]


def boxes_seen(part, n, height, width, seed):
    """Top, left, height and width of the boxes, read off images that show where pixels lie."""
    places = torch.stack(
        torch.meshgrid(torch.arange(height) + 0.0, torch.arange(width) + 0.0, indexing="ij")
    )
    found = part(places.expand(n, 2, height, width), seeded(seed))
    rows, columns = found[:, 0, :, 0], found[:, 1, 0, :]
    h, w = (2 * (line[:, 1] - line[:, 0]) for line in (rows, columns))
    top, left = rows[:, 0] - (h / 4 - 0.5), columns[:, 0] - (w / 4 - 0.5)
    return np.stack([part.round().numpy() for part in (top, left, h, w)])


def test_areas_and_logarithms_of_ratios_are_uniform_where_every_box_fits():
    part = RandomResizedCrop(2, scale=(0.08, 0.5), ratio=(0.6, 1.8))
    _, _, h, w = boxes_seen(part, 3000, 150, 150, 4)
    area, shape = h * w / 150**2, np.log(w / h)
    assert stats.kstest(area, stats.uniform(0.08, 0.42).cdf).pvalue > 1e-3
    low, high = np.log([0.6, 1.8])
    assert stats.kstest(shape, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(area, shape).statistic) < 0.06


def test_boxes_of_the_usual_settings_are_distributed_as_those_drawn_until_they_fit():
    seen = boxes_seen(RandomResizedCrop(2), 3000, 150, 120, 5)
    random, drawn = np.random.default_rng(3), []
    while len(drawn) < 6000:
        area, shape = random.uniform(0.08, 1), np.exp(random.uniform(*np.log([3 / 4, 4 / 3])))
        h, w = np.sqrt(area * 150 * 120 / shape), np.sqrt(area * 150 * 120 * shape)
        if h < 150.5 and w < 120.5:
            drawn.append((np.rint(h), np.rint(w)))
    for found, expected in zip(seen[2:], np.transpose(drawn), strict=True):
        assert stats.ks_2samp(found, expected).pvalue > 1e-3


def test_all_places_of_a_box_are_equally_likely():
    part = RandomResizedCrop(2, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    top, left, h, w = boxes_seen(part, 5000, 6, 6, 6)
    assert (h == 3).all()
    assert (w == 3).all()
    places, times = np.unique(np.stack([top, left]), axis=1, return_counts=True)
    assert places.T.tolist() == [[i, j] for i in range(4) for j in range(4)]
    assert stats.chisquare(times).pvalue > 1e-3


def test_where_no_box_fits_it_is_the_largest_in_the_middle():
    part = RandomResizedCrop(2, scale=(1.0, 1.0))
    assert (boxes_seen(part, 5, 12, 4, 0) == np.array([[3], [0], [5], [4]])).all()
    assert (boxes_seen(part, 5, 6, 13, 0) == np.array([[0], [2], [6], [8]])).all()


@pytest.mark.parametrize("part", PARTS)
def test_equal_states_give_equal_images_and_the_input_and_the_global_generator_stay(part):
    random = torch.get_rng_state()
    for dtype in (torch.uint8, torch.float32, torch.float64):
        x = images(dtype=dtype)
        before = x.clone()
        first, second, third = (PARTS[part](x, seeded(seed)) for seed in (7, 7, 8))
        assert torch.equal(first, second)
        assert not torch.equal(first, third)
        first.zero_()
        assert torch.equal(x, before)
        assert first.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("part", PARTS)
def test_bytes_and_numbers_and_layouts_show_the_same(part):
    x = images()
    found = PARTS[part](x, seeded(4))
    for other in (x.contiguous(memory_format=torch.channels_last), images(dtype=torch.float64)):
        shown = PARTS[part](other, seeded(4)).float()
        torch.testing.assert_close(shown, found, rtol=0, atol=2e-6)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert PARTS[part](x[:1], seeded()).shape == (1, *found.shape[1:])
    assert PARTS[part](x[:0], seeded()).shape == (0, *found.shape[1:])


@pytest.mark.parametrize("part", PARTS)
def test_what_is_drawn_depends_on_the_number_of_images_alone(part):
    states = []
    for x in (
        images(),
        images(dtype=torch.float32, height=20, width=30),
        torch.empty(6, 3, 9, 7, device="meta"),
    ):
        draw = seeded(11)
        PARTS[part](x, draw)
        states.append(draw.get_state())
    torch.set_default_dtype(torch.float32)
    draw = seeded(11)
    (ColorJitter(0, 0, 0, 0) if part == "colours" else RandomResizedCrop(3))(images(), draw)
    assert all(torch.equal(draw.get_state(), state) for state in states)
    draw = seeded(11)
    torch.rand(6 * (8 if part == "colours" else 22), generator=draw, dtype=torch.float64)
    assert torch.equal(draw.get_state(), states[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "size: expected at least 1 pixel, found 0"),
        (lambda: RandomResizedCrop((4, -1)), "size: expected at least 1 pixel, found -1"),
        (lambda: RandomResizedCrop(4, scale=(0.0, 1.0)), r"scale.*found \(0.0, 1.0\)"),
        (lambda: RandomResizedCrop(4, scale=(0.5, 1.1)), r"scale.*found \(0.5, 1.1\)"),
        (lambda: RandomResizedCrop(4, scale=(0.5, 0.4)), r"scale.*found \(0.5, 0.4\)"),
        (lambda: RandomResizedCrop(4, ratio=(0.0, 1.0)), r"ratio.*found \(0.0, 1.0\)"),
        (lambda: RandomResizedCrop(4, ratio=(2.0, 1.0)), r"ratio.*found \(2.0, 1.0\)"),
        (lambda: RandomResizedCrop(4, ratio=(1.0, math.inf)), r"ratio.*found \(1.0, inf\)"),
        (lambda: ColorJitter(brightness=-0.1), "brightness.*of at least 0, found -0.1"),
        (lambda: ColorJitter(contrast=math.inf), "contrast.*found inf"),
        (lambda: ColorJitter(saturation=math.nan), "saturation.*found nan"),
        (lambda: ColorJitter(hue=0.6), "hue: expected a strength from 0 to 0.5, found 0.6"),
    ],
)
def test_settings_outside_their_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("part", "x", "message"),
    [
        ("boxes", images()[0], r"\[n, C, H, W\], found shape \[3, 9, 7\]"),
        ("boxes", images(dtype=torch.int64), r"uint8.*found torch.int64"),
        ("boxes", images(height=0), r"at least one pixel, found shape \[6, 3, 0, 7\]"),
        ("colours", images()[0], r"\[n, C, H, W\], found shape \[3, 9, 7\]"),
        ("colours", images(dtype=torch.int64), r"uint8.*found torch.int64"),
        ("colours", images(channels=1), r"\[n, 3, H, W\].*found shape \[6, 1, 9, 7\]"),
    ],
)
def test_what_are_no_photographs_is_refused(part, x, message):
    with pytest.raises(DataError, match=message):
        PARTS[part](x, seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("part", PARTS)
def test_an_accelerator_gives_the_images_of_the_host(part):
    x = images()
    found = PARTS[part](x.cuda(), seeded(3)).cpu()
    torch.testing.assert_close(found, PARTS[part](x, seeded(3)), rtol=0, atol=2e-6)
