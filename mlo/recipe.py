"""The seam through which problem libraries offer ready programs to the command line."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.table import Table

from mlo.carry import Carry
from mlo.configuration import RecipeConfig
from mlo.engine import Engine
from mlo.errors import CarryError, ConfigurationError, listed, nearest
from mlo.metrics import Metric, as_table
from mlo.randomness import seeded
from mlo.stage_folder import check_names, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlo.recorded import RecordedRun

__all__ = ["Carry", "Recipe", "RecipeConfig", "Setup", "Stage"]

ConfigT = TypeVar("ConfigT", bound=RecipeConfig)


@dataclasses.dataclass(frozen=True)
class Setup:
    """One stage of one repetition, ready to run.

    Attributes:
        engine: the program.
        evaluate: as for `Engine.run`: name -> (function, every). The last values are the metrics
            of the stage.
        finish: called after the last tick; what it returns is handed on to later stages (see
            `Carry`).
        callbacks: what watches the run beside progress and records.
    """

    engine: Engine
    evaluate: Mapping[str, tuple[Callable[..., Any], int]] = dataclasses.field(default_factory=dict)
    finish: Callable[[], Mapping[str, Any]] | None = None
    callbacks: Sequence[object] = ()


@dataclasses.dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """One of the parts that every repetition of a recipe runs one after the other.

    Attributes:
        name: what it is called in tables and folders.
        ticks: how many ticks it makes, if nothing stops it before.
        build: makes it ready from the configuration, the seed of the repetition, and what earlier
            stages of the repetition have handed on. All it draws on the global random states is
            decided by the seed and the name.

    Raises:
        ConfigurationError: no folder can be named after it, or it makes no tick.
    """

    name: str
    ticks: int
    build: Callable[[ConfigT, int, Carry], Setup]

    def __post_init__(self) -> None:
        slug(self.name)
        if not isinstance(self.ticks, int) or self.ticks < 1:
            raise ConfigurationError(
                f"Stage('{self.name}'): expected ticks as a whole number of at least 1, got "
                f"{self.ticks!r}"
            )

    def setup(self, config: ConfigT, seed: int, carry: Carry) -> Setup:
        """Make the stage ready; the global random states are left as they were."""
        with self.seeded(seed):
            return self.built(config, seed, carry)

    def built(self, config: ConfigT, seed: int, carry: Carry) -> Setup:
        """What `build` returns, on the present random states.

        Raises:
            ConfigurationError: it is no `Setup`.
        """
        setup = self.build(config, seed, carry)
        if not isinstance(setup, Setup):
            raise ConfigurationError(
                f"Stage('{self.name}'): expected build to return a Setup, got "
                f"{type(setup).__name__}; return Setup(engine, ...)"
            )
        return setup

    def seeded(self, seed: int) -> Any:
        """A context in which the global random states are those of this stage and seed."""
        return seeded(f"{seed} {self.name}")


class Recipe(abc.ABC, Generic[ConfigT]):
    """A ready program with a validated configuration.

    A library offers an instance through the entry-point group `mlo.recipes`; the command line
    finds it there by `name` and makes an option of every field of `config`.

    Attributes:
        name: what the user types.
        summary: one line, shown by `mlo list`.
        config: the settings with their defaults; the descriptions of its fields are the help.
        presets: name -> settings that go before the defaults, for `--preset`.
        shown: the stage that `mlo graph` and `mlo check` take; the first one where it is None.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    config: type[ConfigT]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    shown: ClassVar[str | None] = None

    @abc.abstractmethod
    def stages(self, config: ConfigT) -> Sequence[Stage[ConfigT]]:
        """The stages of every repetition, in order."""

    def check(self, config: ConfigT) -> None:
        """Refuse a configuration that cannot run, before anything is written.

        Builds every stage of the first repetition that needs nothing from an earlier one; override
        it where that is expensive.

        Raises:
            MloError: (one of its kinds) a stage cannot be built, or two share a name.
        """
        first, *others = ready_stages(self, config)
        first.setup(config, config.first_seed, Carry())  # nobody can hand anything on to it
        for stage in others:
            try:
                stage.setup(config, config.first_seed, Carry())
            except CarryError:
                continue  # it can only be built when its time has come

    def engine(self, config: ConfigT, seed: int, stage: str | None = None) -> Engine:
        """The program of one stage; `mlo graph` draws it.

        Args:
            config: the settings.
            seed: of the repetition.
            stage: its name; `shown`, or the first stage, without one.

        Raises:
            ConfigurationError: there is no such stage.
            CarryError: it needs what an earlier stage hands on.
        """
        stages = {stage.name: stage for stage in ready_stages(self, config)}
        name = stage if stage is not None else self.shown or next(iter(stages))
        if name not in stages:
            raise ConfigurationError(
                f"stage: expected one of {listed(stages)}, got '{name}'{nearest(name, stages)}"
            )
        return stages[name].setup(config, seed, Carry()).engine

    def tables(self, config: ConfigT, metrics: Sequence[Metric]) -> Sequence[Table]:
        """The results for people: by default mean, spread and seeds of every final metric."""
        return [as_table(metrics, title=f"{self.name}: final metrics")]

    def notes(self, config: ConfigT) -> Sequence[str]:
        """Sentences below the tables."""
        return ()

    def about(self, config: ConfigT) -> str | None:
        """What the numbers are about in a few words, such as the data; kept with the results."""
        return None

    def plots(self, config: ConfigT, run: RecordedRun) -> Iterator[tuple[str, Figure]]:
        """Pictures beside those that every run gets, as (name, figure), from what was recorded."""
        yield from ()


def ready_stages(recipe: Recipe[ConfigT], config: ConfigT) -> Sequence[Stage[ConfigT]]:
    """The stages of a recipe, which are some, with names that can stand side by side.

    Raises:
        ConfigurationError: there is none, or two would share a folder.
    """
    stages = recipe.stages(config)
    if not stages:
        raise ConfigurationError(
            f"recipe '{recipe.name}': expected at least one stage, got none; return one from stages"
        )
    check_names([stage.name for stage in stages])
    return stages
