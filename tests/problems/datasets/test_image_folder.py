"""Images decoded from files: size, colour, order, limits, and files that are no images."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mlo.errors import ConfigurationError, DataError
from problems.datasets import ImageFolder, decoded, image_folder

from ...damaged import damaged
from .small_images import image, pixels


@pytest.fixture
def folder(tmp_path):
    """Three images of 8 x 8 pixels with labels 5, 0 and 3."""
    for n in range(3):
        image(tmp_path / f"{n}.png", n)
    return ImageFolder(
        [f"{n}.png" for n in range(3)], torch.tensor([5, 0, 3]), 8, root=str(tmp_path)
    )


def one(path, size=8):
    return ImageFolder([path.name], torch.tensor([0]), size, root=str(path.parent))


def refused(make, *parts):
    with pytest.raises(DataError) as caught:
        make()
    for part in parts:
        assert str(part) in str(caught.value)


def test_an_image_comes_with_its_label_and_index(folder):
    assert len(folder) == 3
    for index, label in enumerate([5, 0, 3]):
        found, its_label, its_index = folder[index]
        assert found.dtype == torch.uint8
        assert (its_label, its_index) == (label, index)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), pixels(index))
    assert folder[-1][2] == 2
    with pytest.raises(IndexError):
        folder[3]


def test_a_loader_with_workers_collates_it(folder):
    loader = DataLoader(pickle.loads(pickle.dumps(folder)), batch_size=3)
    images, labels, index = next(iter(loader))
    assert images.shape == (3, 3, 8, 8)
    assert labels.tolist() == [5, 0, 3]
    assert index.tolist() == [0, 1, 2]


def test_decoded_is_all_of_it_in_order(folder):
    images, labels = decoded(folder)
    assert images.dtype == torch.uint8
    assert all(torch.equal(images[n], folder[n][0]) for n in range(3))
    assert labels.tolist() == [5, 0, 3]
    labels.zero_()
    assert folder.labels.tolist() == [5, 0, 3]


def test_decoded_refuses_more_than_its_limit(folder):
    size = 3 * 3 * 8 * 8
    assert decoded(folder, limit=size)[0].nbytes == size
    refused(lambda: decoded(folder, limit=size - 1), f"{size - 1} bytes", size, "image_folders()")


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_the_middle_square_is_what_is_kept(shape, tmp_path):
    path = image(tmp_path / "a.png", 1, shape)
    top, left = (shape[0] - 6) // 2, (shape[1] - 6) // 2
    expected = pixels(1, shape)[top : top + 6, left : left + 6]
    assert np.array_equal(one(path, 6)[0][0].permute(1, 2, 0).numpy(), expected)


def test_halving_averages_with_the_triangle_of_antialiased_interpolation(tmp_path):
    path = image(tmp_path / "a.png", 2, (16, 16))
    found = one(path, 8)[0][0].double()
    given = torch.from_numpy(pixels(2, (16, 16))).permute(2, 0, 1).double().unsqueeze(0)
    expected = torch.nn.functional.interpolate(
        given, size=8, mode="bilinear", antialias=True, align_corners=False
    )
    assert (found - expected[0]).abs().max() <= 1.5  # both passes round to whole numbers


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_other_colours_become_rgb(mode, tmp_path):
    grey = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    grey.save(tmp_path / "a.png", format="JPEG" if mode == "CMYK" else "PNG")
    found = one(tmp_path / "a.png")[0][0]
    assert found.shape == (3, 8, 8)
    assert found.min() >= 250


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none_is_refused(size, tmp_path):
    with pytest.raises(ConfigurationError, match="size: expected a positive"):
        ImageFolder([], torch.zeros(0), size, root=str(tmp_path))


def test_files_and_labels_of_different_number_are_refused(tmp_path):
    refused(lambda: ImageFolder(["a"], torch.zeros(2), 8, root=str(tmp_path)), "1 files", "[2]")


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/hostname", "", "a\0b", ".."])
def test_names_that_leave_the_folder_are_refused(name, tmp_path):
    (tmp_path / "in").mkdir()
    image(tmp_path / "a.png", 0)
    labels = torch.tensor([0])
    refused(lambda: ImageFolder([name], labels, 8, root=str(tmp_path / "in")), "inside it")


def test_links_out_of_the_folder_are_refused_and_links_within_are_not(tmp_path):
    outside, root = image(tmp_path / "out" / "a.png", 0), tmp_path / "in"
    image(root / "b.png", 1)
    os.symlink(outside, root / "file.png")
    os.symlink(outside.parent, root / "folder")
    os.symlink(root / "b.png", root / "within.png")
    labels = torch.tensor([0])
    for name in ("file.png", "folder/a.png"):
        leading = ImageFolder([name], labels, 8, root=str(root))
        refused(lambda leading=leading: leading[0], "a link out of it")
    within = ImageFolder(["within.png"], labels, 8, root=str(root))
    assert np.array_equal(within[0][0].permute(1, 2, 0).numpy(), pixels(1))


def test_a_folder_reached_through_a_link_is_fine(tmp_path):
    image(tmp_path / "real" / "a.png", 3)
    os.symlink(tmp_path / "real", tmp_path / "link")
    found = ImageFolder(["a.png"], torch.tensor([0]), 8, root=str(tmp_path / "link"))
    assert found[0][0].shape == (3, 8, 8)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "dangling.png")
    for name in ("a.png", "pipe.png", "dangling.png", "absent.png"):
        refused(lambda name=name: one(tmp_path / name)[0], name, "no file")


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = image(tmp_path / "a.png", 0)
    found = one(path)

    def failing(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", failing)
    refused(lambda: found[0], path, "Permission denied")


def test_text_and_formats_not_asked_for_are_refused(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("no image \x1b[31m")
    refused(lambda: one(path)[0], path, "JPEG")
    Image.fromarray(pixels(0)).save(path, format="TIFF")
    refused(lambda: one(path)[0], path, "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_damaged_images_are_typed_errors(kind, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(pixels(0, (24, 24))).save(buffer, format=kind)
    path, refusals = tmp_path / "a.img", 0
    for data in damaged(buffer.getvalue(), 60, random.Random(0)):
        path.write_bytes(data)
        try:
            assert one(path, 24)[0][0].shape == (3, 24, 24)
        except DataError:
            refusals += 1
    # Some flipped bits of pixels are pixels, but what was cut off is always found.
    assert refusals >= 20


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused_and_not_filled_up(kind, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels(0, (64, 64))).save(path, format=kind)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    refused(lambda: one(path)[0], path, "truncated")


def claiming(width, height):
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(8193, 8192), (12_000, 12_000), (40_000, 40_000)])
def test_decompression_bombs_are_refused_before_they_are_decoded(shape, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "convert", never)
    path = tmp_path / "a.png"
    path.write_bytes(claiming(*shape))
    refused(lambda: one(path)[0], path)


def test_the_limit_is_on_pixels(tmp_path, monkeypatch):
    path = image(tmp_path / "a.png", 0, (8, 9))
    monkeypatch.setattr(image_folder, "LARGEST_IMAGE", 72)
    assert one(path)[0][0].shape == (3, 8, 8)
    monkeypatch.setattr(image_folder, "LARGEST_IMAGE", 71)
    refused(lambda: one(path)[0], path, "at most 71 pixels", "9 x 8")


def test_a_thin_image_is_not_scaled_up_along_its_length(tmp_path):
    path = image(tmp_path / "a.png", 0, (1, 60_000))
    assert one(path, 64)[0][0].shape == (3, 64, 64)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(
        lambda: ImageFolder([], torch.zeros(0), 8, root=str(tmp_path)),
        "pillow", "pip install 'mlo-engine[data]'",
    )  # fmt: skip
