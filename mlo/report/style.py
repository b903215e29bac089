"""How everything that matplotlib draws here looks, and the way to matplotlib itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlo.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.6, 2.9
"""Of a chart, in inches; one column of a page."""

PALETTE = {
    "#0064b0": "--c0",
    "#c04a00": "--c1",
    "#00775a": "--c2",
    "#8f3f97": "--c3",
    "#7a6200": "--c4",
    "#b0265d": "--c5",
    "#00748f": "--c6",
    "#5c5f66": "--c7",
}
"""Colour on white -> its variable in the page, which gives it another value in the dark."""

INK, MUTED, GRID, PAPER = "#1c2128", "#57606a", "#d9dee4", "#fefefe"

VARIABLES = {**PALETTE, INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card"}
"""All colours of charts -> variables of the page."""

_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.3, 1.2, 1.3)), (0, (1.4, 1.2)))

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the font of the page
    "svg.hashsalt": "mlo",  # the same numbers give the same file
    "text.parse_math": False,  # names with dollar signs are no formulas
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.0,
    "axes.xmargin": 0.02,
}


@dataclasses.dataclass(frozen=True)
class Look:
    """Colour and dashes of a line; `number` runs through all colours, then repeats them."""

    number: int

    @property
    def color(self) -> str:
        """Its colour on white."""
        return list(PALETTE)[self.number % len(PALETTE)]

    @property
    def variable(self) -> str:
        """The variable of its colour in a page."""
        return PALETTE[self.color]

    @property
    def dashes(self) -> Any:
        """Its dashes; they differ between neighbours, and where a colour comes again."""
        return _DASHES[(self.number + self.number // len(PALETTE)) % len(_DASHES)]


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in this style, whatever the settings of the user are.

    Raises:
        DataError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DataError(
            "plots: expected matplotlib, which is not installed; "
            "install it with: pip install 'mlo-engine[plots]'"
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _SETTINGS.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]  # a name is a literal there
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """A figure of a size in inches that belongs to no window; call it within `styled`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
