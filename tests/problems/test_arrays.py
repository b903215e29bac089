"""Images and labels from .npz files: what is read and what is refused; nothing is executed."""

from __future__ import annotations

import collections
import io
import os
import random
import zipfile

import numpy as np
import pytest
import torch

from mlo.errors import DataError
from problems.datasets import arrays, find_file, load_arrays

from ..bombs import arrays_bombs, blows_up, by_exec, npy, npz, objects, replaced
from ..damaged import damaged

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(12, 2, 5, 3))
Y = np.arange(12) % 3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.npz"


def refused(path, data, match):
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        load_arrays(path)
    message = str(caught.value)
    assert message.startswith(repr(str(path)))
    assert message.isprintable()
    assert len(message) < 700
    assert "allow_pickle=True" not in message


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "g"])
@pytest.mark.parametrize("labels", ["i8", "u1", "u8", ">i2"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels_are_the_numbers_that_were_saved(path, dtype, labels, save):
    x, y = np.asfortranarray(X.astype(dtype)), Y.astype(labels)
    save(path, x=x, y=y, more=np.ones(3))
    images, classes = load_arrays(str(path))
    assert (images.dtype, classes.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(images.numpy(), x.astype("f4"))
    assert classes.tolist() == Y.tolist()
    images.zero_()  # they can be written to, and the file is let go


def test_bytes_are_scaled_to_between_zero_and_one(path):
    x = DRAW.integers(0, 256, size=(4, 1, 8, 8), dtype=np.uint8)
    x[0, 0, 0, :2] = 0, 255
    path.write_bytes(npz(x=x, y=np.array([0, 1, 0, 1])))
    images, _ = load_arrays(path)
    assert torch.equal(images, torch.from_numpy(x.astype("f4") / np.float32(255)))
    assert (images.min(), images.max()) == (0, 1)


def holding(value):
    x = X.copy()
    x[3, 1, 2, 2] = value
    return x


WRONG = {
    "no x": ({"y": Y}, "the arrays 'x' and 'y', found 'y'"),
    "no y": ({"images": X, "x": X}, "the arrays 'x' and 'y', found 'images', 'x'"),
    "nothing": ({}, "the arrays 'x' and 'y', found none"),
    "no channels": ({"x": X[:, 0], "y": Y}, r"x \[N, C, H, W\].* found float64 \[12, 5, 3\]"),
    "no images": ({"x": X[:0], "y": Y[:0]}, r"found float64 \[0, 2, 5, 3\]"),
    "empty images": ({"x": X[:, :, :0], "y": Y}, r"found float64 \[12, 2, 0, 3\]"),
    "whole numbers": ({"x": X.astype(int), "y": Y}, r"found int64 \[12, 2"),
    "truth values": ({"x": X > 0, "y": Y}, r"found bool \[12, 2"),
    "complex ones": ({"x": X + 0j, "y": Y}, r"found complex128"),
    "words": ({"x": X.astype("U3"), "y": Y}, r"found <U3 \[12, 2"),
    "fields": ({"x": np.zeros((12, 2, 5, 3), "f4,f4"), "y": Y}, r"found \[.*\] \[12, 2"),
    "NaN": ({"x": holding(np.nan), "y": Y}, "finite in float32, found 1 that are not"),
    "infinity": ({"x": holding(-np.inf), "y": Y}, "finite in float32, found 1 that are not"),
    "too large": ({"x": holding(1e39), "y": Y}, "finite in float32, found 1 that are not"),
    "another length": ({"x": X, "y": Y[:9]}, "found 12 images and 9 labels"),
    "one-hot rows": ({"x": X, "y": np.eye(3, dtype=int)[Y]}, r"y \[N\].*found int64 \[12, 3\]"),
    "floating labels": ({"x": X, "y": Y * 1.0}, r"found float64 \[12\]"),
    "names of classes": ({"x": X, "y": Y.astype(str)}, r"found <U21 \[12\]"),
    "one label": ({"x": X, "y": np.int64(1)}, r"found int64 \[\]"),
    "negative": ({"x": X, "y": Y - 1}, "found 3 classes from -1 to 1; .*return_inverse"),
    "one negative": ({"x": X, "y": np.where(Y, Y, -1)}, "found 3 classes from -1 to 2"),
    "from 1": ({"x": X, "y": Y + 1}, "found 3 classes from 1 to 3"),
    "with a gap": ({"x": X, "y": 2 * Y}, "found 3 classes from 0 to 4"),
    "a huge one": (
        {"x": X, "y": np.where(Y > 1, 2**63, Y).astype("u8")},
        "0 to 9223372036854775808",
    ),
    "one class": ({"x": X, "y": 0 * Y}, "found 1 classes from 0 to 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_do_not_fit_are_refused_with_what_was_found(path, what):
    content, message = WRONG[what]
    refused(path, npz(**content), message)


def test_no_bomb_of_any_kind_goes_off(tmp_path, path):
    mark = tmp_path / "mark"
    for name, (data, trusting) in arrays_bombs(mark, X, Y).items():
        path.write_bytes(data)
        assert blows_up(path, mark, trusting), f"{name} is no bomb"
        refused(path, None, "expected")
        assert not mark.exists(), name
    path.write_bytes(npz(x=X, y=Y, more=objects(by_exec(mark))))
    assert load_arrays(path)[1].tolist() == Y.tolist()  # nobody looks at the third
    assert not mark.exists()


def header(shape, dtype="<f8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def test_files_that_are_none_or_damaged_are_refused(tmp_path, path):
    refused(tmp_path / "absent.npz", None, "no file that can be read .No such file")
    refused(tmp_path, None, "no file that can be read .Is a directory")
    whole = npz(x=X, y=Y)
    for data in (b"", b"x", b"PK\x05\x06" + bytes(18), npy(X), b"\x93NUMPY" * 20, whole[:-30]):
        refused(path, data, "expected")
    for content in (b"", b"\x93NUMPY", b"\x1b[31m", npy(X)[:-1], npy(X) + b"\0", npy(X)[:100]):
        refused(path, replaced(whole, "x.npy", content), "another one, or a damaged one")
    for shape in ((10**13, 1, 8, 8), (10**30, 1, 1, 1), (-1, 2, 5, 3), (2, 2, 5, 3)):
        data = header(shape) + bytes(960)
        refused(path, replaced(whole, "x.npy", data), "another one, or a damaged one")


def test_more_than_the_limit_is_refused_before_it_is_unpacked(path, monkeypatch):
    compressed = io.BytesIO()
    np.savez_compressed(compressed, x=np.zeros((1000, 1, 64, 64), np.uint8), y=np.arange(1000) % 2)
    data = compressed.getvalue()
    assert len(data) < 10**5
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args: opened.append(args))
    monkeypatch.setattr(arrays, "LARGEST", 4 * 10**6)
    refused(path, data, "arrays of at most 4000000 bytes, found 4104")
    assert opened == []


def test_a_size_that_the_file_understates_is_not_unpacked_beyond_it(path):
    """8 GB that are said to be 1000 bytes: the reader stops there, and the checksum is wrong."""
    whole = bytearray(npz(x=X, y=Y))
    place = whole.index(b"PK\x01\x02")
    assert whole[place + 46 : place + 51] == b"x.npy"
    whole[place + 24 : place + 28] = (1000).to_bytes(4, "little")
    refused(path, bytes(whole), "another one, or a damaged one")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_passes_for_the_numbers_and_none_surfaces_as_another_error(path, save):
    file, draw, outcomes = io.BytesIO(), random.Random(1), collections.Counter()
    save(file, x=X, y=Y)
    whole = file.getvalue()
    path.write_bytes(whole)
    expected = load_arrays(path)
    for data in damaged(whole, 300, draw):
        path.write_bytes(data)
        try:
            found = load_arrays(path)
        except DataError:
            outcomes["refused"] += 1
        else:  # times and such may be anything
            outcomes["loaded"] += 1
            assert all(map(torch.equal, found, expected))
    assert outcomes["refused"] > 200
    assert outcomes["loaded"] > 0


def test_one_changed_bit_in_an_image_is_found(path):
    whole = npz(x=X, y=Y)
    place = whole.index(X[7, 1].tobytes())
    refused(path, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], "CRC")


def test_a_file_is_looked_for_here_and_then_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there, there / "inner"):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MLO_DATA", raising=False)
    (there / "a.npz").touch()
    (there / "inner" / "b.npz").touch()
    with pytest.raises(DataError, match=r"found none at '[^']*here/a\.npz'; give"):
        find_file("a.npz")
    monkeypatch.setenv("MLO_DATA", "")
    with pytest.raises(DataError, match=r"found none at '[^']*here/a\.npz'; give"):
        find_file("a.npz")
    monkeypatch.setenv("MLO_DATA", str(there))
    assert find_file("a.npz") == str(there / "a.npz")
    assert find_file("inner/b.npz") == str(there / "inner" / "b.npz")
    (here / "a.npz").touch()
    assert find_file("a.npz") == str(here / "a.npz")
    assert find_file("../there/a.npz") == str(there / "a.npz")
    assert find_file(str(there / "a.npz")) == str(there / "a.npz")
    monkeypatch.setenv("HOME", str(there))
    assert find_file("~/a.npz") == str(there / "a.npz")
    os.mkfifo(here / "pipe")
    for name in ("", ".", "c.npz", "pipe", "/absent.npz", "a\0b"):
        with pytest.raises(DataError, match="expected a file, found none at '"):
            find_file(name)
    with pytest.raises(DataError, match=r"here/c\.npz' or '[^']*there/c\.npz'; give"):
        find_file("c.npz")
