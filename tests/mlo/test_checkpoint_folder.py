"""A folder of checkpoints: the newest is found, whatever was damaged and whenever it was left."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from mlo.checkpoint_file import write_checkpoint
from mlo.checkpoint_folder import CheckpointFolder
from mlo.errors import CheckpointError

from . import checkpointed
from .checkpointed import name, names, state

folder = checkpointed.folder


def listed(folder: CheckpointFolder) -> list[int]:
    found = json.loads((folder.path / "manifest.json").read_text())
    return [entry["tick"] for entry in found["checkpoints"]]


def write(folder: CheckpointFolder, *ticks: int) -> None:
    for tick in ticks:
        folder.write(state(tick), tick)


def spoil(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("keep", [1, 2, 3, 10])
def test_the_newest_k_are_kept_and_the_newest_is_found(folder, keep):
    folder.keep = keep
    assert folder.newest() is None
    for count, tick in enumerate([5, 10, 3_000_000_000, 20_000_000_000], 1):
        written = folder.write(state(tick), tick)
        assert written.path == folder.path / name(tick)
        found = folder.newest()
        assert (found.path, found.tick, found.damaged) == (written.path, tick, ())
        assert found.state["tick"] == tick
        kept = [5, 10, 3_000_000_000, 20_000_000_000][max(0, count - keep) : count]
        assert names(folder) == sorted(["manifest.json", *map(name, kept)])
        assert listed(folder) == kept[::-1]


def test_the_manifest_says_what_is_there(folder):
    written = folder.write(state(7), 7)
    (entry,) = json.loads((folder.path / "manifest.json").read_text())["checkpoints"]
    assert entry.pop("written").endswith("+00:00")
    assert entry == {
        "file": written.path.name,
        "tick": 7,
        "bytes": written.path.stat().st_size,
        "digest": written.digest,
    }


@pytest.mark.parametrize("damage", ["a bit", "half", "empty", "gone", "other", "unreadable"])
def test_a_damaged_newest_falls_back_and_says_so(folder, damage):
    write(folder, 1, 2)
    path, said = folder.path / name(2), r"tick-0000000002\.pt' is damaged"
    data = path.read_bytes()
    if damage == "a bit":
        spoil(path)
    elif damage in ("half", "empty"):
        path.write_bytes(data[: len(data) // 2 if damage == "half" else 0])
    elif damage == "gone":
        path.unlink()
        said = r"tick-0000000002\.pt' is gone, which the manifest names"
    elif damage == "other":
        write_checkpoint(path, state(2, "second"))
        said = r"tick-0000000002\.pt' is whole, but not the file of the manifest"
    else:
        path.unlink()
        path.mkdir()
    for reader in (folder, CheckpointFolder(folder.path)):
        found = reader.newest()
        assert (found.tick, found.state["tick"], len(found.damaged)) == (1, 1, 1)
        assert re.search(said, found.damaged[0])


def test_a_damaged_one_does_not_count_among_those_that_are_kept(folder):
    write(folder, 1, 2)
    spoil(folder.path / name(2))
    assert folder.newest().tick == 1
    write(folder, 3)
    assert names(folder) == ["manifest.json", name(1), name(3)]
    assert listed(folder) == [3, 1]


def test_a_damaged_one_that_is_written_again_is_whole(folder):
    write(folder, 1, 2)
    spoil(folder.path / name(2))
    assert folder.newest().tick == 1
    write(folder, 2)
    assert (folder.newest().tick, folder.newest().damaged) == (2, ())
    assert names(folder) == ["manifest.json", name(1), name(2)]


def test_where_all_are_damaged_it_is_an_error_that_names_them(folder):
    folder.keep = 3
    write(folder, 1, 2, 3)
    spoil(folder.path / name(3))
    (folder.path / name(2)).unlink()
    (folder.path / name(1)).write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        folder.newest()
    words = str(error.value)
    assert [n for n in (1, 2, 3) if name(n) not in words] == []
    assert "none in" in words
    assert "begin anew" in words
    for tick in (1, 3):
        (folder.path / name(tick)).unlink()
    with pytest.raises(CheckpointError, match="is gone"):
        folder.newest()


def test_a_whole_file_that_does_not_load_here_stops_instead_of_losing_work(folder):
    write(folder, 1, 2)
    with pytest.raises(CheckpointError, match=r"0002\.pt' is whole, but cannot be loaded here"):
        folder.newest(map_location="no such device")
    assert folder.newest(map_location="meta").state["w"].is_meta


MANIFESTS = {
    "gone": None,
    "empty": b"",
    "half": b'{"checkpoints": [{"file": "tick-',
    "bytes": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b'{"checkpoints": 3}',
    "words": b'{"checkpoints": ["a"]}',
    "no digest": b'{"checkpoints": [{"file": "tick-0000000009.pt"}]}',
    "elsewhere": b'{"checkpoints": [{"file": "../tick-0000000009.pt", "digest": "0"}]}',
    "a folder": "folder",
    "deep": b'{"checkpoints": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_without_a_whole_manifest_the_files_are_looked_at_and_it_says_so(folder, kind):
    write(folder, 1, 2)
    path, content = folder.path / "manifest.json", MANIFESTS[kind]
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    found = folder.newest()
    assert (found.tick, len(found.damaged)) == (2, 1)
    said = "is gone" if content is None else "is damaged"
    assert f"manifest.json' {said}" in found.damaged[0]
    spoil(folder.path / name(2))
    assert (folder.newest().tick, len(folder.newest().damaged)) == (1, 2)
    if content != "folder":
        write(folder, 3)
        assert (folder.newest().tick, folder.newest().damaged) == (3, ())
        assert names(folder) == ["manifest.json", name(1), name(3)]


def test_later_checkpoints_belong_to_a_future_that_is_made_again(folder):
    folder.keep = 3
    write(folder, 10, 20, 30)
    folder.write(state(15, "again"), 15)
    assert names(folder) == ["manifest.json", name(10), name(15)]
    assert listed(folder) == [15, 10]
    assert folder.newest().state["run"] == "again"


def test_two_checkpoints_of_one_tick_are_one(folder):
    write(folder, 10, 20)
    folder.write(state(20, "again"), 20)
    found = folder.newest()
    assert (found.state["run"], found.damaged, listed(folder)) == ("again", (), [20, 10])
    assert names(folder) == ["manifest.json", name(10), name(20)]


def test_what_a_killed_writer_left_goes_and_what_belongs_to_others_stays(folder):
    write(folder, 1)
    left = [f".{name(2)}.abcd_123.part", ".manifest.json.abcd1234.part"]
    others = [
        "notes.txt",
        ".notes.txt.abcd1234.part",
        "tick-3.pt",
        "tick-0000000004.pt.bak",
        "x.pt",
    ]
    for file in (*left, *others):
        (folder.path / file).write_bytes(b"PK")
    assert folder.newest().tick == 1
    assert folder.newest().damaged == ()
    write(folder, 2)
    assert names(folder) == sorted(["manifest.json", name(1), name(2), *others])


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="keep=0, expected at least 1"):
        CheckpointFolder(tmp_path, keep=0)
    with pytest.raises(CheckpointError, match="tick -1, expected 0 or later"):
        folder.write({}, -1)
    (tmp_path / "file").write_text("mine")
    taken = CheckpointFolder(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"cannot look into '.*file': Not a directory"):
        taken.newest()
    with pytest.raises(CheckpointError, match=r"cannot write '.*file'"):
        taken.write({}, 1)
    assert (tmp_path / "file").read_text() == "mine"
