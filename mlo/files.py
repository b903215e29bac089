"""Text files that are never half written, and JSON that every reader accepts."""

from __future__ import annotations

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Encode plain values as JSON; NaN and infinities, which JSON lacks, become words.

    ``float("nan")``, ``float("inf")`` and ``float("-inf")`` read the words back.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file in one step: readers find the old content or the new, never a part.

    The text goes to a temporary file beside it, which then takes its name.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes a file that only its owner can read.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
