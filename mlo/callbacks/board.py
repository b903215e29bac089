"""Where the progress of a job is drawn: live on a terminal, in plain lines elsewhere, or nowhere.

A job is one run or several in a row. What a board is given to show is a function, called only
when something is about to be drawn: reading a loss makes the host wait for the device.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from types import TracebackType

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlo.callbacks.folding import fold, printable
from mlo.callbacks.lines import in_words
from mlo.callbacks.numbers import Numbers
from mlo.callbacks.pace import Pace
from mlo.callbacks.tables import drawn

Read = Callable[[], Numbers]
"""Reads the latest numbers."""

_COLUMNS = 80
"""How wide plain lines may be at most: what reads them later may be narrower than the console."""

_REDRAW = 0.25
"""Seconds between two drawings of a live board."""

_SILENCE = 60.0
"""Seconds after which a board of lines prints one, however little was done."""


class Board(abc.ABC):
    """The progress of one job.

    Args:
        title: what the job is.
        ticks: how many ticks it has.
        console: where to draw.
    """

    def __init__(self, title: str, ticks: int, console: rich.console.Console) -> None:
        self.title = title
        self.console = console
        self.pace = Pace(ticks)
        self.label = ""
        self.read: Read = Numbers

    def advance(self, label: str, read: Read) -> None:
        """Count one tick of the part called `label` and draw if it is time to."""
        self.pace.tick()
        self.label, self.read = label, read
        self.update()

    def skip(self, ticks: int) -> None:
        """Count ticks of the job that will not be made, and draw if it is time to.

        They are done as far as the bar is concerned, and tell nothing of the speed.

        Raises:
            ConfigurationError: there are fewer than none.
        """
        self.pace.skip(ticks)
        self.update()

    @abc.abstractmethod
    def open(self) -> None:
        """Begin to draw."""

    @abc.abstractmethod
    def update(self) -> None:
        """Called whenever ticks were counted."""

    @abc.abstractmethod
    def note(self, text: str) -> None:
        """Print a text that stays: above what is drawn over, or among the lines."""

    @abc.abstractmethod
    def close(self) -> None:
        """Draw the last state and leave the terminal as it was."""

    def heading(self) -> str:
        """The title of the job and the name of its present part."""
        return printable(f"{self.title}: {self.label}" if self.label else self.title)

    def __enter__(self) -> Board:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class LiveBoard(Board):
    """A bar with the numbers below it, drawn over itself a few times a second."""

    def open(self) -> None:
        """Start the live drawing; it is refreshed by `update`, never by another thread."""
        self._numbers = Numbers()
        self._due = 0.0
        self._live = Live(console=self.console, auto_refresh=False, get_renderable=self._renderable)
        self._live.start(refresh=True)

    def update(self) -> None:
        """Redraw if the last drawing is old enough."""
        now = time.monotonic()
        if now >= self._due:
            self._numbers = self.read()
            self._live.refresh()
            self._due = time.monotonic() + _REDRAW

    def note(self, text: str) -> None:
        """Print a text above the bar."""
        for line in text.splitlines():
            self.console.print(Text(printable(line)))

    def close(self) -> None:
        """Leave the last state on the screen."""
        try:
            self._numbers = self.read()
        finally:
            self._live.stop()

    def _renderable(self) -> RenderableType:
        columns, lines = self.console.size
        pace = fold(str(self.pace), columns, self.console)
        head = Table.grid(expand=True)
        head.add_row(Text(self.heading(), style="bold", no_wrap=True, overflow="ellipsis"))
        head.add_row(ProgressBar(total=max(self.pace.ticks, 1), completed=self.pace.done))
        head.add_row(Text("\n".join(pace)))
        # Two lines are left to what follows: the cursor and how the run ended.
        room = lines - (2 + len(pace)) - 2
        return Group(head, *drawn(self._numbers, columns, room, self.console))


class LineBoard(Board):
    """A plain line at every tenth of the job, and after every silent minute.

    What callbacks say follows on lines of its own, where it is not what was printed last.
    """

    def open(self) -> None:
        """Nothing is printed before the first tenth."""
        self._tenth = 0
        self._printed = time.monotonic()
        self._said: tuple[str, ...] = ()

    def update(self) -> None:
        """Print a line if it is time to; the last one is left to `close`."""
        tenth = 10 * self.pace.done // max(self.pace.ticks, 1)
        silent = time.monotonic() - self._printed >= _SILENCE
        if (tenth > self._tenth or silent) and self.pace.done < self.pace.ticks:
            self._tenth = tenth
            self._state()

    def note(self, text: str) -> None:
        """Print a text on lines of its own."""
        for line in text.splitlines():
            self._print(line)

    def close(self) -> None:
        """Print the last state."""
        self._state()

    def _state(self) -> None:
        self._printed = time.monotonic()
        numbers = self.read()
        parts = (f"{self.heading()}: {self.pace}", in_words(numbers))
        self._print("; ".join(part for part in parts if part))
        if numbers.lines != self._said:
            self._said = numbers.lines
            for text in numbers.lines:
                self._print(f"{self.heading()}: {text}")

    def _print(self, text: str) -> None:
        for line in fold(text, min(self.console.width, _COLUMNS), self.console):
            # As it is: a plain text knows no styles, and is folded already.
            self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


class SilentBoard(Board):
    """Counts and draws nothing."""

    def open(self) -> None:
        """Nothing to begin."""

    def update(self) -> None:
        """Nothing to draw."""

    def note(self, text: str) -> None:
        """Nothing is printed."""

    def close(self) -> None:
        """Nothing to end."""


def new_board(
    title: str, ticks: int, *, console: rich.console.Console | None = None, quiet: bool = False
) -> Board:
    """Make the board that fits: silent if `quiet`, live on a terminal, lines elsewhere.

    A terminal that cannot redraw gets lines too.

    Args:
        title: what the job is.
        ticks: how many ticks it has.
        console: where to draw; the standard output without it.
        quiet: draw nothing.

    Returns:
        A board to be used in a `with` statement.
    """
    console = console or rich.console.Console()
    if quiet:
        return SilentBoard(title, ticks, console)
    live = console.is_terminal and not console.is_dumb_terminal
    return (LiveBoard if live else LineBoard)(title, ticks, console)
