"""Errors of inner functions, told with the setting that caused them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlo.errors import ConfigurationError, DataError


@contextlib.contextmanager
def blaming(setting: str) -> Iterator[None]:
    """Let configuration and data errors from inside begin with the name of a setting."""
    try:
        yield
    except (ConfigurationError, DataError) as error:
        raise type(error)(f"{setting}: {error}") from error
