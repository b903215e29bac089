"""The axes of charts: whole numbers of ticks, and logarithms as plain text of one size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def log_axis(axes: Axes) -> None:
    """Make the vertical axis logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high) - math.log10(low)
    between = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=between, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    # Powers with raised exponents would be too small to read on a phone.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def tick_axis(axes: Axes) -> None:
    """Give the horizontal axis whole numbers of ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("ticks made")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def plain(value: float) -> str:
    """A number in few letters: 0.01, 5, 1e-7."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
