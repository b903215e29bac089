"""Settings that all experiments on labelled data share, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

import mlo
from mlo.configuration import RecipeConfig
from mlo.hypergradients.registry import make_method
from problems.datasets import DataSet
from problems.datasets.task import Task, check_batch, draw_task
from problems.setting_kinds import DeviceName, MethodName


class RunSettings(RecipeConfig):
    """Repetitions, device and hypergradient method of a run."""

    seeds: int = Field(3, ge=1, description="repetitions, each with a seed of its own")
    first_seed: int = Field(0, ge=0, le=10**12, description="seed of the first repetition")
    evaluations: int = Field(20, ge=1, description="points of the accuracy curves")
    threads: int | None = Field(
        1, ge=1, description="CPU threads; the last digits of the results depend on their number"
    )
    device: DeviceName = Field("cpu", description="where to compute, such as cpu or cuda")
    hypergradient: MethodName = Field(
        "one-step", description="method, by a name that 'mlo list' shows"
    )
    on_nonfinite: Literal["raise", "skip", "rollback", "ignore"] = Field(
        "raise", description="what is done about a NaN or an infinity"
    )
    lookahead: bool = Field(
        True, description="trial moves first, as in the papers; else through the real moves"
    )

    def engine(
        self,
        problems: Sequence[mlo.Problem],
        streams: Mapping[str, Any],
        *,
        lookahead: bool | None = None,
    ) -> mlo.Engine:
        """A program on its streams, on the device and with the guards of the run.

        Args:
            problems: lowest first.
            streams: name -> batches.
            lookahead: of `mlo.Engine`; that of the run for several problems without it.
        """
        ahead = self.lookahead and len(problems) > 1 if lookahead is None else lookahead
        guards = mlo.Guards(on_nonfinite=self.on_nonfinite)
        return mlo.Engine(problems, streams, lookahead=ahead, device=self.device, guards=guards)

    def method(self) -> mlo.Hypergradient:
        """The hypergradient method of the problems that respond."""
        return make_method(self.hypergradient)

    def spread_over(
        self, ticks: int, functions: Mapping[str, Callable[..., Any]]
    ) -> dict[str, tuple[Callable[..., Any], int]]:
        """Evaluations at `evaluations` points of a stage, for `Setup`.

        Args:
            ticks: length of the stage.
            functions: name -> function.
        """
        every = -(-ticks // self.evaluations)
        return {name: (function, every) for name, function in functions.items()}


class Experiment(RunSettings):
    """Length, corruption and batches of an experiment besides."""

    ticks: int = Field(400, ge=1, description="batches that every network is trained on")
    noise: Literal["none", "uniform", "flip", "flip2", "hierarchical"] = Field(
        "flip", description="how training labels become wrong"
    )
    rate: float = Field(0.4, ge=0, le=1, description="probability of a wrong or redrawn label")
    imbalance: float | None = Field(
        None, gt=0, le=1, description="size of the rarest training class over the largest"
    )
    validation_per_class: int = Field(10, ge=1, description="clean validation images of each class")
    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="share of each class kept for test, where no set is given"
    )
    train_batch: int = Field(100, ge=1, description="training images in a batch")
    valid_batch: int = Field(100, ge=1, description="validation images in a batch")

    @property
    def noisy(self) -> bool:
        """Whether some training labels are wrong."""
        return self.noise != "none" and self.rate > 0

    def task(self, data: DataSet, seed: int, *, held_per_class: int | None = None) -> Task:
        """Draw the data of one repetition, on the device.

        Args:
            data: the whole set.
            seed: of the repetition.
            held_per_class: of `draw_task`.

        Raises:
            MloError: (one of its kinds) the data do not fit the settings.
        """
        drawn = draw_task(
            data,
            seed,
            noise=self.noise,
            rate=self.rate,
            imbalance=self.imbalance,
            validation_per_class=self.validation_per_class,
            test_fraction=self.test_fraction,
            held_per_class=held_per_class,
        )
        check_batch("train_batch", self.train_batch, len(drawn.train[1]), seed)
        check_batch("valid_batch", self.valid_batch, len(drawn.valid[1]), seed)
        return drawn.to(self.device)

    def spread_out(
        self, functions: Mapping[str, Callable[..., Any]], ticks: int | None = None
    ) -> dict[str, tuple[Callable[..., Any], int]]:
        """`spread_over` a stage of `ticks`, or of the length of the run without them."""
        return self.spread_over(ticks or self.ticks, functions)
