"""How far a job is and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlo.errors import ConfigurationError

_WINDOW = 2.0
"""Seconds over which the rate is measured, at least."""


class Pace:
    """Counts the ticks of a job: those that are made, and those that will not be.

    Args:
        ticks: the ticks of the whole job.
        clock: gives the time in seconds.

    Attributes:
        made: ticks made so far.
        skipped: ticks that will not be made.
    """

    def __init__(self, ticks: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.ticks = ticks
        self.made = 0
        self.skipped = 0
        self._clock = clock
        self._started = clock()
        # Two marks (time, ticks made): the rate is taken from the older one, so it never rests on
        # less than one window once the first is over.
        self._marks = [(self._started, 0), (self._started, 0)]

    def tick(self) -> None:
        """Count one tick."""
        self.made += 1
        now = self._clock()
        if now - self._marks[1][0] >= _WINDOW:
            self._marks = [self._marks[1], (now, self.made)]

    def skip(self, ticks: int) -> None:
        """Count ticks that will not be made; they tell nothing of the speed.

        Raises:
            ConfigurationError: there are fewer than none.
        """
        if ticks < 0:
            raise ConfigurationError(
                f"skip(ticks=...): expected at least 0, got {ticks}; give the ticks that are left"
            )
        self.skipped += ticks

    @property
    def done(self) -> int:
        """Ticks that are no longer to be made."""
        return self.made + self.skipped

    @property
    def elapsed(self) -> float:
        """Seconds since the job began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Ticks per second of late; 0 where nothing has been measured."""
        then, made = self._marks[0]
        seconds = self._clock() - then
        return (self.made - made) / seconds if seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds to go at the mean speed so far; None before the first tick is made."""
        return self.elapsed / self.made * (self.ticks - self.done) if self.made else None

    def __str__(self) -> str:
        """The state in words, without what is not known."""
        parts = [f"{self.done}/{self.ticks} ticks"]
        if self.rate >= 1:
            parts.append(f"{self.rate:.1f} ticks/s")
        elif self.rate > 0:
            parts.append(f"{1 / self.rate:.1f} s/tick")
        parts.append(f"{duration(self.elapsed)} elapsed")
        if self.remaining is not None and self.done < self.ticks:
            parts.append(f"{duration(self.remaining)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Write seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
