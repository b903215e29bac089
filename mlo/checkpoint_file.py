"""One checkpoint in one file: every byte of it is checked before anything of it is loaded.

The file is an ordinary one of `torch.save`, which is a zip archive. Each of its records carries a
CRC-32 that torch has computed in passing. The comment at the end of the archive states

    sha256(all bytes before the comment that are no record's content)

where headers, padding and the directory with the CRCs are. Together they cover every bit, and
writing costs no second pass over the tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import pickle
import re
import struct
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mlo.errors import CheckpointError
from mlo.files import check_records, replacing
from mlo.plain import check_plain, mapped_tensors

_COMMENT = b"mlo sha256 %b"
_LENGTH = len(_COMMENT % bytes(64))


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: where.
        bytes: the size of the file.
        digest: its checksum, as its comment states it.
        seconds: how long it took.
    """

    path: pathlib.Path
    bytes: int
    digest: str
    seconds: float


def write_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Written:
    """Write a state in one step: synced under a temporary name beside it, then renamed.

    Tensors are written without gradients, hooks and attributes, and of views of larger ones only
    what is seen. Costs what `torch.save` and `fsync` cost, and no memory for tensors on the CPU.

    Args:
        path: the file, which may exist.
        state: plain values, see `mlo.plain.check_plain`.

    Raises:
        CheckpointError: the state holds what a file cannot hold safely, or the file cannot be
            written; then nothing at `path` has changed, and no temporary file is left.
    """
    started = time.perf_counter()
    path, sink = pathlib.Path(path), _Sink()
    plain = _plain(state)
    try:
        with replacing(path) as file:
            _save(plain, sink.into(file))
            digest = _seal(file)
            size = file.tell()
    except OSError as error:
        needed = f" ({sink.bytes + _LENGTH} bytes are needed)" if sink.bytes else ""
        raise CheckpointError(
            f"checkpoint: cannot write '{path}': {error.strerror or error}{needed}; make room, or "
            "choose a folder that can be written to. The last checkpoint is intact"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"checkpoint: cannot write '{path}': torch cannot save the state ({_reason(error)}). "
            "The last checkpoint is intact"
        ) from error
    return Written(path, size, digest, time.perf_counter() - started)


def read_checkpoint(path: str | os.PathLike[str], *, map_location: Any = None) -> dict[str, Any]:
    """Check every byte of a checkpoint, then load it; nothing in it is executed.

    Args:
        path: a file of `write_checkpoint`.
        map_location: where tensors go, as for `torch.load`.

    Raises:
        CheckpointError: it is absent or damaged, or holds more than plain values, or its devices
            are not here.
    """
    path = pathlib.Path(path)
    file, _ = open_verified(path)
    with file:
        return load_verified(file, path, map_location)


def open_verified(path: pathlib.Path) -> tuple[BinaryIO, str]:
    """Check every byte of a checkpoint; returns the open file, and its digest.

    Raises:
        CheckpointError: it is absent or damaged.
    """
    with contextlib.ExitStack() as stack:
        # Damage can surface as nearly every kind of error of zipfile.
        try:
            file = stack.enter_context(path.open("rb"))
            digest = _verify(file)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"checkpoint: there is no '{path}' (FileNotFoundError); give a file that was "
                "written as a checkpoint"
            ) from error
        except Exception as error:
            raise CheckpointError(
                f"checkpoint: '{path}' is damaged or no checkpoint ({_reason(error)}); go on from "
                "an earlier one"
            ) from error
        stack.pop_all()
    return file, digest


def load_verified(file: BinaryIO, path: pathlib.Path, map_location: Any) -> dict[str, Any]:
    """Load a file that `open_verified` has opened.

    Raises:
        CheckpointError: it holds more than plain values, or its devices are not here.
    """
    file.seek(0)
    try:
        found = torch.load(file, map_location=map_location, weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint: '{path}' holds more than tensors and plain values, so that loading it "
            "would execute code; nothing was executed. Go on from a checkpoint of your own"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"checkpoint: '{path}' is whole, but cannot be loaded here ({_reason(error)}); give a "
            "map_location that is here, or the version of torch that wrote it"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"checkpoint: '{path}' holds a {type(found).__name__}, expected names and values; "
            "give a file that was written as a checkpoint"
        )
    return found


class _Sink:
    """Hands on to a file, and counts.

    Torch puts other errors in the place of what its file raises. This one raises nothing: it
    keeps the first failure, for the caller to raise, and counts on.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.failure: BaseException | None = None

    def into(self, file: BinaryIO) -> _Sink:
        self.file = file
        return self

    def write(self, data: memoryview) -> int:
        self.bytes += len(data)
        if self.failure is None:
            try:
                self.file.write(data)
            except BaseException as error:
                self.failure = error
        return len(data)

    def flush(self) -> None:
        pass  # `replacing` does


def _save(state: dict[str, Any], sink: _Sink) -> None:
    outside, crc = sys.exception(), torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(state, sink)  # type: ignore[arg-type]
    except Exception as error:
        raise sink.failure or _interrupt(error, outside) or error from None
    finally:
        torch.serialization.set_crc32_options(crc)
    if sink.failure is not None:
        raise sink.failure


def _interrupt(error: BaseException, outside: BaseException | None) -> BaseException | None:
    """An interrupt that came just as torch called the sink, and that torch has hidden."""
    while error.__context__ not in (None, outside):
        error = error.__context__
        if not isinstance(error, Exception):
            return error
    return None


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with bare tensors.

    Raises:
        CheckpointError: it holds what a file cannot hold safely.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"checkpoint: expected names and values, found {type(state).__name__}"
        )
    try:
        check_plain(dict(state), "state")
    except RecursionError as error:
        raise CheckpointError(
            "checkpoint: the state holds itself, or containers in containers without end; "
            "expected a tree of values"
        ) from error
    plain: dict[str, Any] = mapped_tensors(dict(state), _compact)
    return plain


def _compact(t: Tensor) -> Tensor:
    """A bare tensor without the rest of what it is a view of, which torch would write as well."""
    t = t.detach()
    whole = t.layout != torch.strided or t.untyped_storage().nbytes() <= t.nbytes
    return t if whole else t.clone()


def _seal(file: BinaryIO) -> str:
    """Append the digest as the comment of the archive; its length is in the last two bytes."""
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", _LENGTH))
    with zipfile.ZipFile(file) as archive:
        digest = _digest(file, archive, file.seek(0, os.SEEK_END))
    file.seek(0, os.SEEK_END)
    file.write(_COMMENT % digest.encode())
    return digest


def _verify(file: BinaryIO) -> str:
    with zipfile.ZipFile(file) as archive:
        found = re.fullmatch(_COMMENT % b"([0-9a-f]{64})", archive.comment)
        if found is None:
            raise zipfile.BadZipFile("it states no checksum of mlo at its end")
        digest = _digest(file, archive, file.seek(0, os.SEEK_END) - _LENGTH)
        if digest != found[1].decode():
            raise zipfile.BadZipFile("the checksum at its end does not fit")
        check_records(archive)
    return digest


def _digest(file: BinaryIO, archive: zipfile.ZipFile, end: int) -> str:
    seen, position = hashlib.sha256(), 0
    for start, stop in (*_contents(file, archive), (end, end)):
        file.seek(position)
        seen.update(file.read(start - position))
        position = stop
    return seen.hexdigest()


def _contents(file: BinaryIO, archive: zipfile.ZipFile) -> Iterator[tuple[int, int]]:
    """(first byte, byte after the last) of every record's content; APPNOTE.TXT, section 4.3.7."""
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        file.seek(entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        yield start, start + entry.compress_size


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
