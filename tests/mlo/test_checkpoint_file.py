"""One checkpoint in one file: what is written is read, and nothing else is."""

from __future__ import annotations

import collections
import errno
import io
import math
import os
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import Tensor, nn

from mlo import checkpoint_file
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.errors import CheckpointError
from mlo.plain import differences


def state() -> dict:
    weight = torch.randn(30, 20)
    return {
        "weights": {
            "w": weight,
            "tied": weight,
            "row": weight[2:5],
            "b": torch.tensor([math.nan, -0.0]),
        },
        "half": torch.randn(7).to(torch.bfloat16),
        "flags": [True, None, 3, -(2**80), 2.5, "naïve", (1, (2,))],
        "scheduler": collections.Counter({10: 1}),
        "ordered": collections.OrderedDict(a=torch.zeros(0)),
        "places": [torch.device("cuda:1"), torch.float64],
        1: {None: torch.eye(2).to_sparse()},
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.pt"


def test_a_state_comes_back_bit_for_bit_and_torch_reads_the_file_as_its_own(path):
    given = state()
    written = write_checkpoint(path, given)
    data = path.read_bytes()
    for found in (
        read_checkpoint(path),
        torch.load(path, weights_only=True),
        torch.load(io.BytesIO(data), weights_only=True),
        torch.load(path, weights_only=True, mmap=True),
    ):
        assert list(differences(given, found)) == []
        assert found["weights"]["w"].data_ptr() == found["weights"]["tied"].data_ptr()
        assert type(found["scheduler"]) is collections.Counter
    assert written.bytes == len(data)
    assert data.endswith(b"mlo sha256 " + written.digest.encode())
    assert 0 < written.seconds < 60
    assert list(path.parent.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_many_records_of_many_sizes_come_back(path):
    given = {"t": [torch.randn(n) for n in range(300)], "large": torch.randn(400_000)}
    write_checkpoint(path, given)
    assert list(differences(given, read_checkpoint(path))) == []


def test_writing_leaves_the_state_as_it_was_and_drops_gradients_hooks_and_attributes(path):
    weight = nn.Parameter(torch.ones(3))
    weight.tag, product = object(), weight * 2
    product.register_hook(print)
    given = {"weight": weight, "product": product}
    write_checkpoint(path, given)
    assert given["weight"] is weight
    assert given["product"] is product
    found = read_checkpoint(path)
    assert [(type(t), t.requires_grad, t.sum().item()) for t in found.values()] == [
        (Tensor, False, 3.0),
        (Tensor, False, 6.0),
    ]


def test_an_existing_file_is_replaced_and_can_be_read_by_all_who_could_before(path):
    for value in (1, 2):
        write_checkpoint(str(path), {"a": value})
        assert read_checkpoint(str(path)) == {"a": value}
    assert path.stat().st_mode & 0o777 == 0o644


def test_tensors_go_where_they_are_sent(path):
    write_checkpoint(path, {"a": torch.ones(2)})
    assert read_checkpoint(path, map_location="meta")["a"].is_meta
    with pytest.raises(CheckpointError, match=r"state\.pt' is whole, but .*map_location"):
        read_checkpoint(path, map_location="no such device")


class Marked(Tensor):
    pass


ENDLESS: dict = {}
ENDLESS["me"] = ENDLESS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, {"b": nn.Linear(1, 1)}]}, r"state\['a'\]\[1\]\['b'\] is a Linear"),
        ({"a": {(1, 2): 3}}, r"state\['a'\] has the key \(1, 2\)"),
        ({"a": [torch.ones(2, 3).as_subclass(Marked)]}, r"a Marked of shape \(2, 3\)"),
        (
            {"a": torch.ones(2).float().to_mkldnn()},
            "torch cannot save the state .*NotImplementedError",
        ),
        (ENDLESS, "holds itself"),
        ([1], "expected names and values, found list"),
    ],
)
def test_what_no_file_can_hold_is_refused_and_the_old_file_stays(path, value, words):
    write_checkpoint(path, {"a": 1})
    with pytest.raises(CheckpointError, match=words):
        write_checkpoint(path, value)
    assert read_checkpoint(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_checksums_are_written_where_torch_was_told_to_leave_them_out(path):
    torch.serialization.set_crc32_options(False)
    try:
        write_checkpoint(path, {"a": torch.ones(20)})
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)["a"].sum() == 20


def test_a_file_is_read_where_torch_was_told_to_map_files(path):
    write_checkpoint(path, {"a": torch.ones(20)})
    with torch.utils.serialization.config.patch("load.mmap", True):
        assert read_checkpoint(path)["a"].sum() == 20


STEPS = ["fsync", "replace", "chmod", "fdopen"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", [*STEPS, "write"])
def test_whatever_the_system_refuses_is_a_typed_error_and_the_old_file_stays(
    path, monkeypatch, code, step
):
    write_checkpoint(path, {"a": 1})
    large = {"a": torch.ones(100_000)}

    def refuse(first, *rest):
        if step == "fdopen":
            os.close(first)
        raise OSError(code, os.strerror(code))

    target = "mlo.checkpoint_file._seal" if step == "write" else f"mlo.files.os.{step}"
    monkeypatch.setattr(target, refuse)
    with pytest.raises(CheckpointError, match=r"state\.pt'.*The last checkpoint is intact") as e:
        write_checkpoint(path, large)
    monkeypatch.undo()
    assert os.strerror(code) in str(e.value)
    if step != "fdopen":
        (needed,) = re.findall(r"\((\d+) bytes are needed\)", str(e.value))
        assert int(needed) == write_checkpoint(path.with_name("large.pt"), large).bytes
        path.with_name("large.pt").unlink()
    assert read_checkpoint(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot write '.*No such file or directory; make"):
        write_checkpoint(tmp_path / "none" / "a.pt", {})


def test_the_file_is_synced_before_it_takes_its_name_and_the_folder_after(path, monkeypatch):
    seen = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            whole = name == "replace" or not os.path.isdir(f"/proc/self/fd/{args[0]}")
            seen.append((name, "file" if whole else "folder"))
            return real(*args)

        monkeypatch.setattr(f"mlo.files.os.{name}", noted)
    write_checkpoint(path, {"a": 1})
    assert seen == [("fsync", "file"), ("replace", "file"), ("fsync", "folder")]


INTERRUPTED = """
import pathlib, random, signal, sys, torch
from mlo.checkpoint_file import read_checkpoint, write_checkpoint
from mlo.files import final_name
path, draw = pathlib.Path(sys.argv[1]), random.Random(1)
states = [{"t": [torch.full((20,), float(i)) for _ in range(200)]} for i in range(2)]
write_checkpoint(path, states[0])
def stop(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
stopped = 0
for trial in range(60):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, 8e-3))
            write_checkpoint(path, states[trial % 2])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        stopped += 1
    assert len({float(t.mean()) for t in read_checkpoint(path)["t"]}) == 1
left = [file.name for file in path.parent.iterdir() if file != path]
assert all(final_name(name) == path.name for name in left), left
print(stopped, len(left))
"""


def test_an_interrupt_at_any_moment_of_writing_is_one_and_leaves_a_whole_file(path):
    found = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, path], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    stopped, left = map(int, found.stdout.split())
    assert stopped > 15
    assert left <= 5, "an interrupt in the instant in which a temporary file is made can leave it"


def test_an_interrupt_that_torch_hides_is_found(path, monkeypatch):
    class Interrupting(checkpoint_file._Sink):
        def write(self, data):
            if self.bytes > 200:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint_file, "_Sink", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, state())
    monkeypatch.undo()
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:  # one that came before is not taken for one of the write
        with pytest.raises(CheckpointError, match="NotImplementedError"):
            write_checkpoint(path, {"a": torch.ones(2).float().to_mkldnn()})
    assert list(path.parent.iterdir()) == []
