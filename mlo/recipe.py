"""The seam through which problem libraries offer ready programs to the command line."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import rich.console
from rich.table import Table

from mlo.callbacks import Callback, Console, Recorder
from mlo.callbacks.board import Board, new_board
from mlo.configuration import RecipeConfig
from mlo.engine import Engine
from mlo.run_folder import RunFolder

ConfigT = TypeVar("ConfigT", bound=RecipeConfig)


@dataclasses.dataclass(frozen=True)
class Results:
    """What a finished recipe has to show.

    Attributes:
        numbers: the results as plain values; they become `results.json`.
        tables: the same for people, printed in this order.
        notes: sentences printed below them.
    """

    numbers: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Job:
    """Where a run of a recipe writes and draws.

    Attributes:
        title: what the job is called on the screen.
        console: the terminal, or what stands for it.
        folder: the folder of the run; None to write nothing.
        quiet: show no progress.
    """

    title: str
    console: rich.console.Console = dataclasses.field(default_factory=rich.console.Console)
    folder: RunFolder | None = None
    quiet: bool = False

    def board(self, ticks: int) -> Board:
        """Make the board on which all runs of the job together draw their progress."""
        return new_board(self.title, ticks, console=self.console, quiet=self.quiet)

    def callbacks(self, part: str, board: Board) -> tuple[Callback, ...]:
        """Make the callbacks for one of the runs: progress on the board, records in the folder.

        Args:
            part: name of this run among those of the job.
            board: the open board of the job.
        """
        progress = Console(part, board=board)
        if self.folder is None:
            return (progress,)
        name = re.sub(r"\W+", "-", part).strip("-").lower()
        return progress, Recorder(self.folder.records(name))


class Recipe(abc.ABC, Generic[ConfigT]):
    """A ready program with a validated configuration.

    A library offers an instance through the entry-point group `mlo.recipes`; the command line
    finds it there by `name` and makes an option of every field of `config`.

    Attributes:
        name: what the user types.
        summary: one line, shown by `mlo list`.
        config: the settings with their defaults; the descriptions of its fields are the help.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    config: type[ConfigT]

    @abc.abstractmethod
    def engine(self, config: ConfigT, seed: int) -> Engine:
        """Build the program of one repetition; `mlo graph` draws it."""

    def check(self, config: ConfigT) -> None:
        """Refuse a configuration that cannot run, before anything is written.

        Builds the program of the first repetition; override it where that is expensive.
        """
        self.engine(config, config.first_seed)

    @abc.abstractmethod
    def run(self, config: ConfigT, job: Job) -> Results:
        """Run all repetitions and gather their results."""
