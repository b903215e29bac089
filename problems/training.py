"""How classifiers and what stands above them are trained: optimizers and schedules of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

import mlo
from mlo.configuration import Section
from mlo.errors import ConfigurationError

Decay = Annotated[float, Field(ge=0, lt=1)]
"""How much of an average is kept from step to step."""


class Training(Section):
    """SGD of a classifier, the same for all that are compared.

    The rate falls to zero as half a cosine or, with `milestones`, by `factor` at each of them.
    """

    learning_rate: float = Field(0.05, ge=0, le=1e30, description="SGD rate of the classifiers")
    momentum: float = Field(0.9, ge=0, lt=1, description="their momentum")
    nesterov: bool = Field(False, description="Nesterov's form of it")
    weight_decay: float = Field(5e-4, ge=0, description="their weight decay")
    clip_norm: float | None = Field(None, gt=0, description="bound on the norm of a gradient")
    milestones: tuple[float, ...] = Field(
        (), description="shares of the run after which the rate falls; half a cosine without any"
    )
    factor: float = Field(0.1, gt=0, le=1, description="what the rate is multiplied by there")

    @model_validator(mode="after")
    def _rising_shares(self) -> Training:
        if list(self.milestones) != sorted(set(self.milestones)) or not all(
            0 < share < 1 for share in self.milestones
        ):
            raise ValueError(
                "milestones: expected rising shares between 0 and 1, both excluded, got "
                f"{list(self.milestones)}"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")
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
        if not self.milestones:
            return CosineAnnealingLR(optimizer, ticks)
        falls = [round(share * ticks) for share in self.milestones]
        return MultiStepLR(optimizer, falls, gamma=self.factor)


class Upper(Section):
    """The optimizer of a problem that is judged on validation data."""

    optimizer: Literal["adam", "sgd"] = Field("adam", description="rule of the upper problem")
    betas: tuple[Decay, Decay] = Field((0.5, 0.999), description="Adam's decay rates")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, in Nesterov's form")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of the upper problem")
    clip_norm: float | None = Field(None, gt=0, description="bound on the norm of its gradient")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="whether its rates fall to zero as half a cosine"
    )
    every: int = Field(1, ge=1, description="ticks between two of its moves")

    def problem(
        self,
        name: str,
        groups: Iterable[tuple[Iterable[Tensor], float]],
        loss: Any,
        *,
        ticks: int,
        **options: Any,
    ) -> mlo.Problem:
        """Declare an upper problem in a run of `ticks`.

        Args:
            name: of the problem.
            groups: parameters and the rate of each group; groups without parameters are left out.
            loss: what it minimizes.
            ticks: length of the run.
            options: of `mlo.Problem`, the module among them.
        """
        lists = [(list(params), rate) for params, rate in groups]
        optimizer = self._rule([{"params": params, "lr": rate} for params, rate in lists if params])
        schedule = None
        if self.schedule == "cosine":
            schedule = CosineAnnealingLR(optimizer, moves(ticks // self.every))
        return mlo.Problem(
            name,
            loss=loss,
            optimizer=optimizer,
            scheduler=schedule,
            clip_norm=self.clip_norm,
            every=self.every,
            **options,
        )

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
