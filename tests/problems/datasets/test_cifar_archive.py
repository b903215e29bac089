"""CIFAR from the official archive: verified, read without unpacking, and not trusted."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import random
import tarfile

import pytest
import torch

from mlo.errors import DataError
from problems.datasets import archive, cifar, load_data_set

from ...damaged import damaged
from .small_cifar import member, members, packed, records, small, written

# As the official page states them.
MD5 = {
    "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
}


@pytest.fixture(params=["cifar10", "cifar100"])
def made(request, monkeypatch):
    layout = small(request.param, monkeypatch)
    return request.param, layout, records(layout)


def trust(name, monkeypatch, md5):
    """Let the checksum fit, so that the rest of the checks is reached."""
    monkeypatch.setitem(cifar.LAYOUTS, name, dataclasses.replace(cifar.LAYOUTS[name], md5=md5))


def refused(name, path, *parts):
    with pytest.raises(DataError) as caught:
        load_data_set(name, str(path))
    for part in (path, *parts):
        assert str(part) in str(caught.value)


def test_the_layouts_are_the_official_ones():
    assert {name: layout.md5 for name, layout in cifar.LAYOUTS.items()} == MD5
    ten, hundred = cifar.LAYOUTS["cifar10"], cifar.LAYOUTS["cifar100"]
    assert [ten.size(file) for file in ten.files] == [30_730_000] * 6
    assert [hundred.size(file) for file in hundred.files] == [153_700_000, 30_740_000]
    assert [*ten.files] == [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


def test_an_archive_gives_what_the_unpacked_folder_gives_and_has_the_plain_name(
    made, monkeypatch, tmp_path
):
    name, layout, content = made
    # Not in order, and with more members, as the official archives have them.
    inside = [member(f"{layout.folder}/readme.html", b"hello"), *members(layout, content)[::-1]]
    trust(name, monkeypatch, packed(tmp_path / layout.archive, inside))
    folder = load_data_set(name, str(written(tmp_path / "unpacked", content)))
    before = sorted(os.listdir(tmp_path))
    for path in (tmp_path / layout.archive, tmp_path):
        data = load_data_set(name, str(path))
        assert data.source == layout.title
        assert data.fingerprint == folder.fingerprint
        for part, other in ((data.train, folder.train), (data.test, folder.test)):
            assert torch.equal(part[0], other[0])
            assert torch.equal(part[1], other[1])
    assert sorted(os.listdir(tmp_path)) == before


def test_the_verified_archive_is_preferred_to_the_folder_beside_it(made, monkeypatch, tmp_path):
    name, layout, content = made
    trust(name, monkeypatch, packed(tmp_path / layout.archive, members(layout, content)))
    written(tmp_path / layout.folder, content)
    monkeypatch.setenv("MLO_DATA", str(tmp_path))
    assert load_data_set(name).source == layout.title


def test_another_checksum_is_refused_before_anything_is_unpacked(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    found = packed(path, members(layout, content))

    def never(*_, **__):
        raise AssertionError("it was opened")

    monkeypatch.setattr(gzip, "GzipFile", never)
    refused(name, path, MD5[name], found, layout.archive, "kriz/cifar.html")


def test_every_damage_is_refused(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    trust(name, monkeypatch, packed(path, members(layout, content)))
    whole = path.read_bytes()
    for data in damaged(whole, 30, random.Random(0)):
        path.write_bytes(data)
        refused(name, path, layout.archive, "MD5")


def test_damage_with_a_checksum_that_fits_is_a_typed_error_or_harmless(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    packed(path, members(layout, content))
    whole = path.read_bytes()
    refusals = []
    for data in damaged(whole, 60, random.Random(1)):
        path.write_bytes(data)
        trust(name, monkeypatch, hashlib.md5(data).hexdigest())
        try:
            load_data_set(name, str(path))
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) >= 55  # some bits of a header say nothing
    assert all(layout.archive in refusal for refusal in refusals)


def bomb(layout, content):
    return [*members(layout, content), member("zeros", bytes(2 * archive.SLACK))]


@pytest.mark.parametrize("first", [True, False])
def test_an_archive_bomb_is_not_unpacked(made, first, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    inside = bomb(layout, content)
    trust(name, monkeypatch, packed(path, inside[::-1] if first else inside))
    refused(name, path, "when unpacked", "more")


def test_a_bomb_of_zeros_takes_no_memory(monkeypatch, tmp_path):
    small("cifar10", monkeypatch)
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(64):
            stream.write(bytes(2**20))
    trust("cifar10", monkeypatch, hashlib.md5(path.read_bytes()).hexdigest())
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size)
    )
    refused("cifar10", path, "when unpacked")
    assert asked
    assert all(0 < size < 2 * archive.SLACK for size in asked)


LINKS = {
    "symlink": {"type": tarfile.SYMTYPE, "linkname": "/etc/hostname", "size": 0},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "/etc/hostname", "size": 0},
    "folder": {"type": tarfile.DIRTYPE, "size": 0},
    "device": {"type": tarfile.CHRTYPE, "size": 0},
    "pipe": {"type": tarfile.FIFOTYPE, "size": 0},
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_member_that_is_no_plain_file_is_refused(made, kind, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    (info, _), *others = members(layout, content)
    inside = [member(info.name, b"", **LINKS[kind]), *others]
    trust(name, monkeypatch, packed(path, inside))
    refused(name, path, info.name, "of another kind")


@pytest.mark.parametrize("prefix", ["/", "../", "x/../"])
def test_names_that_lead_elsewhere_are_not_the_ones_asked_for(made, prefix, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    (info, data), *others = members(layout, content)
    trust(name, monkeypatch, packed(path, [member(prefix + info.name, data), *others]))
    refused(name, path, f"the member {info.name}", "found none")


def test_members_twice_absent_or_of_another_size_are_refused(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    first, *others = members(layout, content)
    shorter = member(first[0].name, first[1][:-1])
    longer = member(first[0].name, first[1] + b"x")
    for inside, found in (
        ([first, *others, first], "two"),
        (others, "none"),
        ([shorter, *others], f"{len(first[1]) - 1} bytes"),
        ([longer, *others], f"{len(first[1]) + 1} bytes"),
    ):
        trust(name, monkeypatch, packed(path, inside))
        refused(name, path, first[0].name, found)


def test_a_size_that_the_archive_only_claims_is_refused(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    *others, (info, data) = members(layout, content)
    with gzip.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w:") as made_of:
        for other, rows in others:
            made_of.addfile(other, io.BytesIO(rows))
        made_of.fileobj.write(info.tobuf() + data[: len(data) // 2])
    trust(name, monkeypatch, hashlib.md5(path.read_bytes()).hexdigest())
    refused(name, path)


def test_an_archive_that_cannot_be_read_is_refused(made, monkeypatch, tmp_path):
    name, layout, content = made
    path = tmp_path / layout.archive
    packed(path, members(layout, content))

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", failing)
    refused(name, path, "Input/output error")
