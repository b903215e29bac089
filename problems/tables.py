"""Cells of tables."""

from __future__ import annotations


def cell(value: float | None, scale: float, digits: int) -> str:
    """A number times `scale`, or a dash where there is none."""
    return "-" if value is None else f"{scale * value:.{digits}f}"
