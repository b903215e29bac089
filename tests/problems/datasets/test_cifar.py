"""CIFAR from a folder: what is read, what it is called, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pathlib

import numpy as np
import pytest
import torch

from mlo.errors import DataError
from problems.datasets import load_data_set

from .small_cifar import records, small, written

NAMES = ["cifar10", "cifar100"]


@pytest.fixture(params=NAMES)
def made(request, monkeypatch, tmp_path):
    """Name, layout, records and the folder that holds the files."""
    layout = small(request.param, monkeypatch)
    content = records(layout)
    return request.param, layout, content, written(tmp_path / layout.folder, content)


def test_a_folder_gives_the_pixels_and_labels_of_its_records(made):
    name, layout, content, folder = made
    data = load_data_set(name, str(folder))
    *train, test = content.values()
    for (images, labels), rows in ((data.train, np.concatenate(train)), (data.test, test)):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == rows[:, len(layout.ranges) - 1].tolist()
        assert images.shape == (len(rows), 3, 32, 32)
        # Channel c, row r and column s of record i lie at byte 1024 c + 32 r + s of its pixels.
        for i, c, r, s in [(0, 0, 0, 0), (3, 1, 2, 5), (len(rows) - 1, 2, 31, 30)]:
            byte = len(layout.ranges) + 1024 * c + 32 * r + s
            assert int(images[i, c, r, s]) == int(rows[i, byte])
    assert data.classes == layout.ranges[-1]


def test_superclasses_are_the_coarse_labels(monkeypatch, tmp_path):
    layout = small("cifar100", monkeypatch)
    folder = written(tmp_path / "any name", records(layout))
    assert load_data_set("cifar100", str(folder)).superclasses.tolist() == [
        k % 20 for k in range(100)
    ]


def test_cifar10_has_no_superclasses(monkeypatch, tmp_path):
    folder = written(tmp_path, records(small("cifar10", monkeypatch)))
    assert load_data_set("cifar10", str(folder)).superclasses is None


def test_the_parent_the_folder_and_the_environment_lead_to_the_same(made, monkeypatch):
    name, _, _, folder = made
    monkeypatch.setenv("MLO_DATA", str(folder.parent))
    found = {
        load_data_set(name, path).fingerprint
        for path in (str(folder), str(folder.parent), None, folder.name)
    }
    assert len(found) == 1


def test_a_copy_is_called_after_the_sha256_of_its_files(made):
    name, layout, content, folder = made
    digest = hashlib.sha256(b"".join(rows.tobytes() for rows in content.values())).hexdigest()
    data = load_data_set(name, str(folder))
    assert data.fingerprint == digest
    assert data.source == f"{layout.title} (unverified copy {digest[:8]})"
    assert data.name == name


def test_a_known_copy_has_its_name(monkeypatch, tmp_path):
    content = records(small("cifar10", monkeypatch))
    digest = hashlib.sha256(b"".join(rows.tobytes() for rows in content.values())).hexdigest()
    small("cifar10", monkeypatch, known={digest: "a copy of mine"})
    data = load_data_set("cifar10", str(written(tmp_path, content)))
    assert data.source == "CIFAR-10 (a copy of mine)"


def test_one_byte_changes_name_and_fingerprint(made):
    name, _, content, folder = made
    before = load_data_set(name, str(folder))
    [*content.values()][-1][-1, -1] ^= 1
    after = load_data_set(name, str(written(folder, content)))
    assert after.fingerprint != before.fingerprint
    assert after.source != before.source


def refused(name, path, *parts):
    with pytest.raises(DataError) as caught:
        load_data_set(name, None if path is None else str(path))
    for part in parts:
        assert str(part) in str(caught.value)


WANTED = ["https://www.cs.toronto.edu/~kriz/cifar.html", "MLO_DATA"]


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_set_says_what_to_fetch_and_where_to_put_it(name, tmp_path, monkeypatch):
    archive = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}[name]
    monkeypatch.delenv("MLO_DATA", raising=False)
    refused(name, None, archive, "not set", *WANTED)
    refused(name, tmp_path, archive, tmp_path, *WANTED)
    refused(name, tmp_path / "nowhere", archive, tmp_path / "nowhere", *WANTED)
    monkeypatch.setenv("MLO_DATA", str(tmp_path / "gone"))
    refused(name, None, archive, tmp_path / "gone", *WANTED)
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    refused(name, None, archive, tmp_path, *WANTED)


def test_each_missing_file_is_named(made):
    name, layout, content, folder = made
    for file in layout.files:
        (folder / file).unlink()
        refused(name, folder, folder / file, f"{layout.size(file)} bytes", "found none", WANTED[0])
        written(folder, content)


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_a_truncated_or_longer_file_is_refused(made, change):
    name, layout, _, folder = made
    file = [*layout.files][-1]
    size = layout.size(file) + change
    with (folder / file).open("r+b") as opened:
        opened.truncate(size)
    refused(name, folder, folder / file, f"{layout.size(file)} bytes", f"found {size} bytes")


def test_a_file_that_is_a_folder_or_a_pipe_is_refused(made):
    name, layout, _, folder = made
    file = folder / next(iter(layout.files))
    file.unlink()
    file.mkdir()
    refused(name, folder, file, "found none")
    file.rmdir()
    os.mkfifo(file)
    refused(name, folder, file, "found none")


def test_a_file_that_cannot_be_read_is_refused(made, monkeypatch):
    name, layout, _, folder = made

    def failing(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", failing)
    refused(name, folder, folder / next(iter(layout.files)), "Permission denied", "permissions")


@pytest.mark.parametrize(
    ("name", "column", "largest"), [("cifar10", 0, 9), ("cifar100", 0, 19), ("cifar100", 1, 99)]
)
def test_a_label_out_of_range_is_refused(name, column, largest, monkeypatch, tmp_path):
    content = records(small(name, monkeypatch))
    file = next(iter(content))
    content[file][7, column] = largest + 1
    folder = written(tmp_path, content)
    refused(name, folder, folder / file, f"0 to {largest}", f"{largest + 1} in record 7")


def test_a_class_without_a_training_image_is_refused(made):
    name, _, content, folder = made
    for rows in [*content.values()][:-1]:
        rows[rows[:, -3073] == 3] = rows[4]
    refused(name, written(folder, content), "none of class 3")


def test_a_class_in_two_superclasses_is_refused(monkeypatch, tmp_path):
    content = records(small("cifar100", monkeypatch))
    content["test.bin"][42, 0] = 5
    refused("cifar100", written(tmp_path, content), "class 42 in [2, 5]", "one superclass")


def test_a_superclass_without_classes_is_refused(monkeypatch, tmp_path):
    content = records(small("cifar100", monkeypatch))
    for rows in content.values():
        rows[rows[:, 0] == 19, 0] = 3
    refused("cifar100", written(tmp_path, content), "20 superclasses", "found 19")


@pytest.mark.skipif(
    not (pathlib.Path(os.environ.get("MLO_DATA", "")) / "cifar-10-batches-bin").is_dir(),
    reason="needs CIFAR-10 in its binary layout in the folder that MLO_DATA names",
)
def test_cifar10_itself_has_its_classes_and_colours():
    folder = os.path.join(os.environ["MLO_DATA"], "cifar-10-batches-bin")
    data = load_data_set("cifar10", folder)
    assert torch.bincount(data.train[1]).tolist() == [5000] * 10
    assert torch.bincount(data.test[1]).tolist() == [1000] * 10
    # Means of the three channels over the training images that the literature normalizes by.
    means = [data.train[0][:, channel].numpy().mean() for channel in range(3)]
    assert means == pytest.approx([125.3, 123.0, 113.9], abs=0.5)
    assert "(" in data.source  # a folder is never called the official copy
