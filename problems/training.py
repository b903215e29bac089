"""How classifiers and what stands above them are trained: optimizers and schedules of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

import mlo
from mlo.configuration import Section
from mlo.errors import ConfigurationError

Decay = Annotated[float, Field(ge=0, lt=1)]
"""How much of an average is kept from step to step."""


class Training(Section):
    """SGD of a network, the same for all that are compared.

    With T moves and t made, the rate of a move is r(t), by `schedule`:

        cosine        floor + (rate - floor) (1 + cos(pi t / T)) / 2
        steps         rate times `factor` for each of the `milestones` that is behind
        exponential   rate factor^e, with e = t / epoch rounded down
        linear        rate (1 - t / T)

    With `warmup` w > 0 the rates of the first w T moves are multiplied by (t + 1) / (w T), so
    that they grow linearly. With `epoch` n, t counts as the last multiple of n before it, so that
    rates change once an epoch, as in published protocols.
    """

    learning_rate: float = Field(0.05, ge=0, le=1e30, description="SGD rate of the classifiers")
    momentum: float = Field(0.9, ge=0, lt=1, description="their momentum")
    nesterov: bool = Field(False, description="Nesterov's form of it")
    weight_decay: float = Field(5e-4, ge=0, description="their weight decay")
    clip_norm: float | None = Field(None, gt=0, description="bound on the norm of a gradient")
    schedule: Literal["cosine", "steps", "exponential", "linear"] = Field(
        "cosine", description="how the rate falls; by steps where milestones are given"
    )
    floor: float = Field(0.0, ge=0, description="rate at which half a cosine ends")
    milestones: tuple[float, ...] = Field(
        (), description="shares of the run after which the rate falls by steps"
    )
    factor: float = Field(0.1, gt=0, le=1, description="what the rate is multiplied by there")
    epoch: int | None = Field(
        None, ge=1, description="moves between two changes of the rate; each move without it"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run in which the rate grows")

    @model_validator(mode="before")
    @classmethod
    def _steps_by_milestones(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("milestones") and "schedule" not in given:
            return {**given, "schedule": "steps"}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if list(self.milestones) != sorted(set(self.milestones)) or not all(
            0 < share < 1 for share in self.milestones
        ):
            raise ValueError(
                "milestones: expected rising shares between 0 and 1, both excluded, got "
                f"{list(self.milestones)}"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(
                "milestones: expected some with schedule 'steps' and none with another, got "
                f"{list(self.milestones)} with '{self.schedule}'"
            )
        if self.schedule == "exponential" and self.epoch is None:
            raise ValueError("epoch: expected a number of moves with schedule 'exponential'")
        if self.floor > self.learning_rate or (self.floor and self.schedule != "cosine"):
            raise ValueError(
                "floor: expected at most the learning rate, and one with schedule 'cosine' only, "
                f"got {self.floor} with {self.learning_rate} and '{self.schedule}'"
            )
        return self

    def problem(
        self, name: str, network: nn.Module, loss: Any, *, ticks: int, **options: Any
    ) -> mlo.Problem:
        """Declare the training of a network by `loss` over `ticks` moves.

        Args:
            name: of the problem.
            network: its module.
            loss: what it minimizes.
            ticks: length of the run, which the schedule needs.
            options: of `mlo.Problem`.
        """
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
        return mlo.Problem(
            name,
            module=network,
            loss=loss,
            optimizer=optimizer,
            scheduler=self._schedule(optimizer, moves(ticks)),
            clip_norm=self.clip_norm,
            **options,
        )

    def _schedule(self, optimizer: torch.optim.Optimizer, ticks: int) -> LRScheduler:
        if self.epoch is None and not self.warmup:
            if self.schedule == "cosine":
                return CosineAnnealingLR(optimizer, ticks, eta_min=self.floor)
            if self.schedule == "steps":
                falls = [round(share * ticks) for share in self.milestones]
                return MultiStepLR(optimizer, falls, gamma=self.factor)
        return LambdaLR(optimizer, lambda made: self.share(made, ticks=ticks))

    def share(self, made: int, *, ticks: int) -> float:
        """r(t) over the learning rate.

        Args:
            made: t.
            ticks: T.
        """
        t = min(made, ticks)  # an engine may go on beyond the end
        t = t if self.epoch is None else t // self.epoch * self.epoch
        return self._fallen(t, ticks) * self._grown(t, ticks)

    def _fallen(self, t: int, ticks: int) -> float:
        if self.schedule == "steps":
            return self.factor ** sum(t >= round(share * ticks) for share in self.milestones)
        if self.schedule == "exponential":
            return self.factor ** (t // (self.epoch or 1))
        if self.schedule == "linear":
            return 1 - t / ticks
        end = self.floor / (self.learning_rate or 1.0)
        return end + (1 - end) * (1 + math.cos(math.pi * t / ticks)) / 2

    def _grown(self, t: int, ticks: int) -> float:
        growing = self.warmup * ticks
        step = 1 if self.epoch is None else self.epoch
        return min(1.0, (t + step) / growing) if growing else 1.0


class Upper(Section):
    """The optimizer of a problem that is judged on validation data."""

    optimizer: Literal["adam", "sgd"] = Field("adam", description="rule of the upper problem")
    betas: tuple[Decay, Decay] = Field((0.5, 0.999), description="Adam's decay rates")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, in Nesterov's form")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of the upper problem")
    clip_norm: float | None = Field(None, gt=0, description="bound on the norm of its gradient")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="whether its rates fall as half a cosine"
    )
    floor: float = Field(0.0, ge=0, description="rate at which half a cosine ends")
    every: int = Field(1, ge=1, description="ticks between two of its moves")

    @model_validator(mode="after")
    def _floor_of_a_fall(self) -> Self:
        if self.floor and self.schedule != "cosine":
            raise ValueError(
                f"floor: expected none with schedule '{self.schedule}', got {self.floor}"
            )
        return self

    def problem(
        self,
        name: str,
        groups: Iterable[Mapping[str, Any]],
        loss: Any,
        *,
        ticks: int,
        **options: Any,
    ) -> mlo.Problem:
        """Declare an upper problem in a run of `ticks`.

        Args:
            name: of the problem.
            groups: as `torch.optim` takes them, with "params" and "lr", and with "weight_decay"
                where it is not that of the section; groups without parameters are left out.
            loss: what it minimizes.
            ticks: length of the run.
            options: of `mlo.Problem`, the module among them.
        """
        lists = [{**group, "params": list(group["params"])} for group in groups]
        lists = [group for group in lists if group["params"]]
        optimizer = self._rule(lists)
        schedule = None
        if self.schedule == "cosine":
            length = moves(ticks // self.every)
            schedule = CosineAnnealingLR(optimizer, length, eta_min=self._end(lists))
        return mlo.Problem(
            name,
            loss=loss,
            optimizer=optimizer,
            scheduler=schedule,
            clip_norm=self.clip_norm,
            every=self.every,
            **options,
        )

    def _end(self, groups: Iterable[Mapping[str, Any]]) -> float:
        """The rate at which all groups end, which none may begin below.

        Raises:
            ConfigurationError: one does.
        """
        moving = (g for g in groups if any(p.requires_grad for p in g["params"]))
        least = min((group["lr"] for group in moving), default=math.inf)
        if self.floor > least:
            raise ConfigurationError(
                f"floor: expected at most the smallest rate, {least}, found {self.floor}; rates "
                "fall to it"
            )
        return self.floor

    def _rule(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, betas=self.betas, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            groups,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
        )


def moves(ticks: int) -> int:
    """The number of moves that a schedule is made for.

    Raises:
        ConfigurationError: there is none.
    """
    if ticks < 1:
        raise ConfigurationError(
            f"ticks: expected at least one move of every problem, found {ticks}. "
            "Run longer or lower `every`."
        )
    return ticks
