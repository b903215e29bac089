"""Damaged and hostile checkpoints: every wrong bit is found, and nothing is executed."""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import random
import re
import struct
import tarfile

import pytest
import torch

from mlo.checkpoint_file import _seal, read_checkpoint, write_checkpoint
from mlo.errors import CheckpointError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.pt"


def assert_refused(path: pathlib.Path, data: bytes, why: str) -> None:
    path.unlink(missing_ok=True)  # a file that is only made shorter costs ext4 a flush
    path.write_bytes(data)
    try:
        read_checkpoint(path)
        words = "it was loaded"
    except CheckpointError as error:
        words = str(error)
    assert re.search(r"state\.pt' is damaged or no checkpoint .*; go on from an ear", words), why


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def load(*args, **settings):
        raise AssertionError("a damaged file was handed to torch")

    monkeypatch.setattr(torch, "load", load)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_one_wrong_bit_anywhere_is_found(path):
    write_checkpoint(path, {"a": torch.randn(70), "b": [torch.randn(3), "x", 1.5]})
    whole, draw = path.read_bytes(), random.Random(3)
    end = len(whole) - 75
    for place in range(len(whole)):  # every header, record, padding, directory, end and comment
        bits = range(8) if place >= end - 22 else [draw.randrange(8)]
        for bit in bits:
            data = bytearray(whole)
            data[place] ^= 1 << bit
            assert_refused(path, data, f"bit {bit} of byte {place} of {len(whole)}")


@pytest.mark.usefixtures("nothing_is_loaded")
def test_every_truncation_and_every_addition_is_found(path):
    write_checkpoint(path, {"a": torch.randn(70), "b": [torch.randn(3), "x", 1.5]})
    whole = path.read_bytes()
    for size in range(len(whole)):
        assert_refused(path, whole[:size], f"the first {size} bytes")
    for more in (b"\0", b"\n", b"x" * 22, whole[-75:], whole):
        assert_refused(path, whole + more, f"{len(more)} bytes at the end")
        assert_refused(path, more + whole, f"{len(more)} bytes at the beginning")


@pytest.mark.usefixtures("nothing_is_loaded")
def test_lost_zeroed_doubled_and_exchanged_blocks_are_found(path):
    write_checkpoint(path, {"a": torch.randn(3000), "b": torch.randn(3000)})
    other, draw = path.read_bytes(), random.Random(5)
    write_checkpoint(path, {"a": torch.randn(3000), "b": torch.randn(3000)})
    whole = path.read_bytes()
    assert len(whole) == len(other)
    for trial in range(500):
        size = draw.choice([1, 16, 64, 512, 4096])
        start = draw.randrange(len(whole) - size)
        block = whole[start : start + size]
        instead = (b"", bytes(size), 2 * block, other[start : start + size], block[::-1])[trial % 5]
        data = whole[:start] + instead + whole[start + size :]
        if data != whole:
            assert_refused(path, data, f"trial {trial}: {size} bytes at {start}")


@pytest.mark.usefixtures("nothing_is_loaded")
def test_files_that_are_no_checkpoints_are_refused(path):
    for save in (torch.save, pickle.dump):
        with path.open("wb") as file:
            save({"a": 1}, file)
        assert_refused(path, path.read_bytes(), save.__module__)
    for text in (b"", b"x", b"PK\5\6" + bytes(18), b"mlo sha256 " + b"0" * 64):
        assert_refused(path, text, repr(text))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"there is no '.*state\.pt'.*give a file"):
        read_checkpoint(path)
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"state\.pt' is damaged.*IsADirectoryError"):
        read_checkpoint(path)


class Bomb:
    def __init__(self, mark, call):
        self.mark, self.call = str(mark), call

    def __reduce__(self):
        code = f"import pathlib; pathlib.Path({self.mark!r}).touch()"
        return (os.system, (f"touch {self.mark}",)) if self.call == "system" else (exec, (code,))


def bombs(mark: pathlib.Path, call: str) -> dict[str, bytes]:
    """Files that run code where somebody unpickles them carelessly."""
    bomb = {"x": Bomb(mark, call)}
    new, old, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(bomb, new)
    torch.save(bomb, old, _use_new_zipfile_serialization=False)
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(pickle.dumps(bomb))
            archive.addfile(entry, io.BytesIO(pickle.dumps(bomb)))
    found = {"zip": new, "old": old, "tar": tar, "raw": io.BytesIO(pickle.dumps(bomb))}
    return {name: file.getvalue() for name, file in found.items()}


def sealed(data: bytes) -> bytes:
    """The same with a right checksum, whatever it is."""
    file = io.BytesIO(data if data[:2] == b"PK" else data + b"PK\5\6" + bytes(18))
    if data[:2] != b"PK":  # an archive without records; what comes before is covered as padding
        file.getbuffer()[-6:-2] = struct.pack("<I", len(data))
    _seal(file)
    return file.getvalue()


@pytest.mark.parametrize("call", ["system", "exec"])
@pytest.mark.parametrize("kind", ["zip", "old", "tar", "raw"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(path, kind, call):
    mark = path.parent / "exploded"
    plain = bombs(mark, call)[kind]
    assert_refused(path, plain, kind)
    path.write_bytes(sealed(plain))
    with pytest.raises(CheckpointError, match=r"state\.pt' (holds more than|is whole, but)"):
        read_checkpoint(path)
    assert not mark.exists()
    if kind in ("zip", "old"):
        torch.load(path, weights_only=False)
        assert mark.exists(), "the bomb is none"


def test_nothing_in_the_environment_makes_loading_careless(path, monkeypatch):
    mark = path.parent / "exploded"
    path.write_bytes(sealed(bombs(mark, "exec")["zip"]))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match="nothing was executed"):
        read_checkpoint(path)
    assert not mark.exists()


def test_a_sealed_file_without_names_and_values_is_refused(path):
    for content in (torch.ones(2), [1]):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(sealed(buffer.getvalue()))
        with pytest.raises(CheckpointError, match=rf"holds a {type(content).__name__}, expected"):
            read_checkpoint(path)
