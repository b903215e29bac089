"""Notes on errors of the user's own functions: where they happened, and with what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mlo.errors import MloError


@contextlib.contextmanager
def noting(where: str, batch: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Add to an error raised inside where that was and what the batches looked like."""
    try:
        yield
    except MloError:
        raise
    except Exception as error:
        seen = "; ".join(f"{name}: {_shape(value)}" for name, value in (batch or {}).items())
        error.add_note(f"{where}" + (f", with {seen}" if seen else ""))
        raise


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_shape, value[:4])) + (", ...)" if len(value) > 4 else ")")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_shape(v)}" for k, v in list(value.items())[:4]) + "}"
    return type(value).__name__
