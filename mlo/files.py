"""Files that are never half written, and JSON that every reader accepts."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from mlo.errors import MloError, RunFolderError

_TEMPORARY = ".part"
"""The end of the name of a file that is being written."""


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Encode plain values as JSON; NaN and infinities, which JSON lacks, become words.

    ``float("nan")``, ``float("inf")`` and ``float("-inf")`` read the words back.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file in one step: readers find the old content or the new, never a part.

    Raises:
        RunFolderError: it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write a file in one step, as `write_text` does.

    Raises:
        RunFolderError: it cannot be written.
    """
    with writing(path), replacing(path) as file:
        file.write(data)


def check_records(archive: zipfile.ZipFile) -> None:
    """Look at the checksums of all records of an archive, which torch does not do.

    Raises:
        BadZipFile: one does not fit.
    """
    if (name := archive.testzip()) is not None:
        raise zipfile.BadZipFile(f"the checksum of {name!r} does not fit")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write and read, which takes the name `path` once it is whole and on the disk.

    It has a temporary name beside it until then. Where the block or the disk
    fails, the temporary file is removed and `path` is as it was. Only the last step, which makes
    the new name last through a power cut, can fail after it was given.

    Raises:
        OSError: the system refuses.
    """
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY
    )
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            # mkstemp makes a file that only its owner can read.
            os.chmod(temporary, 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)  # it may have its name already
        raise
    sync_folder(path.parent)


def final_name(temporary: str) -> str | None:
    """The name that a temporary file of `replacing` was to take; None for any other file."""
    found = re.fullmatch(rf"\.(.+)\.\w{{8}}{re.escape(_TEMPORARY)}", temporary)
    return found and found[1]


def sync_folder(path: pathlib.Path) -> None:
    """Bring the names in a folder to the disk, which syncing the files does not.

    Raises:
        OSError: the system refuses.
    """
    if os.name == "nt":  # no folder can be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # it keeps no folders of its own
            raise
    finally:
        os.close(handle)


def make_folder(path: pathlib.Path) -> None:
    """Make a folder and those above it that last through a power cut.

    Raises:
        OSError: the system refuses.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


@contextlib.contextmanager
def writing(path: pathlib.Path, kind: type[MloError] = RunFolderError) -> Iterator[None]:
    """Name the path where something inside cannot be written or made.

    Raises:
        MloError: of that kind; the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise kind(
            f"cannot write '{path}': {error.strerror}; "
            "make room, or choose a folder that can be written to"
        ) from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object, such as the files of a run folder are.

    Raises:
        RunFolderError: it is absent or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(
            f"run folder: cannot read '{path}': {error.strerror}; give a folder that 'mlo run' made"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"run folder: '{path}' is damaged: {error}") from error
    if not isinstance(found, dict):
        raise RunFolderError(f"run folder: '{path}' is damaged: it holds no names and values")
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
