"""Files that are never half written, and JSON that every reader accepts."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from mlo.errors import RunFolderError


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Encode plain values as JSON; NaN and infinities, which JSON lacks, become words.

    ``float("nan")``, ``float("inf")`` and ``float("-inf")`` read the words back.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file in one step: readers find the old content or the new, never a part.

    The text goes to a temporary file beside it, which then takes its name.

    Raises:
        RunFolderError: it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write a file in one step, as `write_text` does.

    Raises:
        RunFolderError: it cannot be written.
    """
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            # mkstemp makes a file that only its owner can read.
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)  # it may have its name already
            raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Name the path where something inside cannot be written or made.

    Raises:
        RunFolderError: the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(
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
