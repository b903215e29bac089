"""Disks that are really full: a limit on the size of files, and a small file system."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from mlo.errors import RunFolderError
from mlo.files import replacing, write_bytes, writing

COMMON = """
import os, pathlib, re, resource, sys, torch
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.checkpoint_folder import CheckpointFolder
from mlo.errors import CheckpointError

torch.manual_seed(0)
path = pathlib.Path(sys.argv[1])
old = {"t": torch.ones(100)}
new = {"t": [torch.randn(200) for _ in range(40)], "u": torch.randn(20_000)}
"""

LIMITED = (
    COMMON
    + """
written = write_checkpoint(path / "measured.pt", new)
os.unlink(written.path)
folder = CheckpointFolder(path)
folder.write(old, 1)
write_checkpoint(path / "same.pt", old)
before = sorted(os.listdir(path))
sizes = {0, 1, 21, 22, 30, 64, 4095, 4096, 8191, 8192, 8193}
sizes |= set(range(100, written.bytes, 2000))
sizes |= {written.bytes - gap for gap in (1, 2, 22, 74, 75, 76, 77, 97, 98, 500, 4000)}
failed = 0
for size in sorted(sizes):
    for write in (lambda: folder.write(new, 2), lambda: write_checkpoint(path / "same.pt", new)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            write()
        except CheckpointError as error:
            failed += 1
            assert "File too large" in str(error), error
            assert "The last checkpoint is intact" in str(error), error
            assert str(path) in str(error), error
            needed = int(re.search(r"\\((\\d+) bytes are needed", str(error))[1])
            assert needed == written.bytes, (needed, written.bytes)
        else:
            raise AssertionError(f"written although only {size} bytes are allowed")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert sorted(os.listdir(path)) == before, size
        found = folder.newest()
        assert (found.tick, found.damaged) == (1, ())
        assert torch.equal(found.state["t"], old["t"])
        assert torch.equal(read_checkpoint(path / "same.pt")["t"], old["t"])
resource.setrlimit(resource.RLIMIT_FSIZE, (written.bytes, resource.RLIM_INFINITY))
folder.write(new, 2)
assert folder.newest().tick == 2
print(failed, len(sizes))
"""
)

SMALL = (
    COMMON
    + """
folder = CheckpointFolder(path)
tick, large = 0, {"w": torch.randn(60_000)}
folder.write(large, 1)  # 240 KB each, on 1 MB
for filler in range(40):
    (path / f"filler-{filler}").write_bytes(b"x" * 16_000)
    tick = folder.newest().tick
    try:
        folder.write(large, tick + 1)
    except CheckpointError as error:
        assert "No space left on device" in str(error), error
        assert "make room" in str(error), error
        found = folder.newest()
        assert (found.tick, found.damaged) == (tick, ())
        assert torch.equal(found.state["w"], large["w"])
        assert not [name for name in os.listdir(path) if name.endswith(".part")]
        break
else:
    raise AssertionError("the disk was never full")
for file in path.glob("filler-*"):
    file.unlink()
folder.write(large, tick + 1)
assert folder.newest().tick == tick + 1
print(tick, filler)
"""
)


def run(*words: str | pathlib.Path) -> str:
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_wherever_a_file_grows_too_large_the_last_checkpoint_is_intact(tmp_path):
    failed, sizes = map(int, run(sys.executable, "-c", LIMITED, tmp_path).split())
    assert failed == 2 * sizes
    assert sizes > 60


def small_disk(path: pathlib.Path) -> list[str]:
    """The beginning of a command that sees a disk of 1 MB at a path, without rights of root."""
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    return ["unshare", "-Urm", "sh", "-c", script, str(path)]


def test_a_full_disk_is_a_typed_error_and_the_run_goes_on_when_there_is_room(tmp_path):
    try:
        subprocess.run([*small_disk(tmp_path), "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be made here: {error}")
    tick, filler = map(
        int, run(*small_disk(tmp_path), sys.executable, "-c", SMALL, tmp_path).split()
    )
    assert tick > 1
    assert filler > 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_text_that_finds_the_device_full_is_a_typed_error(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_bytes(path, b"old")
    real = os.fdopen

    def full(handle, mode):
        os.dup2(os.open("/dev/full", os.O_RDWR), handle)
        return real(handle, mode)

    monkeypatch.setattr("mlo.files.os.fdopen", full)
    for data in (b"x", b"x" * 100_000):
        with pytest.raises(RunFolderError, match=r"run\.json': No space left on device; make room"):
            write_bytes(path, data)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_sync_is_an_error_but_one_that_cannot_is_none(tmp_path, monkeypatch):
    path, real = tmp_path / "a", os.fsync
    for code, fails in ((errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)):

        def refuse(handle, code=code):
            if os.path.isdir(f"/proc/self/fd/{handle}"):
                raise OSError(code, os.strerror(code))
            real(handle)

        monkeypatch.setattr("mlo.files.os.fsync", refuse)
        if fails:
            with pytest.raises(RunFolderError, match="Input/output error"):
                write_bytes(path, b"new")
        else:
            write_bytes(path, b"new")
        assert path.read_bytes() == b"new"


def test_the_error_has_the_kind_that_is_asked_for(tmp_path):
    with (
        pytest.raises(RunFolderError, match="cannot write"),
        writing(tmp_path),
        replacing(tmp_path / "none" / "a"),
    ):
        raise AssertionError("there is no such folder")
