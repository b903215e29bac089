"""The declaration of one problem: parameters, loss, optimizer, and how others differentiate it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mlo.arguments import (
    OptimizerLike,
    checked_clip_norm,
    checked_count,
    checked_method,
    checked_module,
    checked_name,
    checked_names,
    checked_optimizer,
    checked_project,
    checked_restart,
    checked_scheduler,
)
from mlo.errors import ParameterError
from mlo.hypergradients import Hypergradient
from mlo.projection import ProjectFn
from mlo.reads import declared_reads


class Problem:
    r"""One optimization problem of a multilevel program: ``w* = argmin_w f(w, what it reads)``.

    The loss's argument names declare everything that it reads: problems by name (it is handed
    their modules), data streams by name (it is handed a batch) and `tick`. Its variables w are the
    parameters of its module that are trainable and held by its optimizer.

    Args:
        name: an identifier; other losses read the problem by it.
        module: the `nn.Module` that holds the parameters, used as it is.
        params: instead of `module`: name -> tensor; the tensors are cloned into an
            `nn.ParameterDict`, so the optimizer must then be a function.
        loss: returns a scalar tensor, or ``(scalar, {metric: value})``.
        optimizer: a `torch.optim` optimizer over the module's parameters, kept as given, or a
            function from the list of trainable parameters to one.
        hypergradient: how problems above differentiate through this one (default: `OneStep()`).
        reads: what the loss reads, in the order of its arguments; only for callables whose
            signature cannot be read.
        every: it moves once per `every` ticks in which a problem below it that it reads moved.
        repeat: updates it makes when it moves, each on a new draw of its streams, all at one
            learning rate.
        warmup: ticks that it waits first.
        accumulate: micro-batches of each update; its loss is their mean, its gradient is taken one
            after another, and all of them belong to the move.
        start: where the problem begins anew: a function whose argument names are what it reads, as
            for a loss; it returns name -> tensor for all variables, or a module with parameters of
            these names. Methods that differentiate a recorded move differentiate through it too.
        restart: it begins anew before every `restart`-th of its moves, the first one included; the
            optimizer's state is then as it was given. Default 1 where `start` is given.
        clip_norm: bound on the Euclidean norm of its gradient, as `clip_grad_norm_` applies it.
        constant: lower problems that its loss reads without answering through them.
        project: maps name -> tensor to the projected tensors after each move (differentiably).
        updates_buffers: problems whose buffers a real move of this one updates, besides its own.
        scheduler: a learning-rate scheduler of the optimizer, or a function from it to one.
        scheduler_every: name of a stream: the scheduler steps once per epoch of it, instead of once
            per move.
        scheduler_metric: what a scheduler that wants a metric is given: `"loss"` or the name of a
            metric that the loss returns.

    Raises:
        DeclarationError: an argument is missing or of the wrong kind; the message names it.
    """

    def __init__(
        self,
        name: str,
        *,
        module: nn.Module | None = None,
        params: Mapping[str, Tensor] | None = None,
        loss: Callable[..., Any],
        optimizer: OptimizerLike,
        hypergradient: Hypergradient | None = None,
        reads: Sequence[str] | None = None,
        every: int = 1,
        repeat: int = 1,
        warmup: int = 0,
        accumulate: int = 1,
        start: Callable[..., Any] | None = None,
        restart: int | None = None,
        clip_norm: float | None = None,
        constant: Sequence[str] = (),
        project: ProjectFn | None = None,
        updates_buffers: Sequence[str] = (),
        scheduler: Any = None,
        scheduler_every: str | None = None,
        scheduler_metric: str = "loss",
    ) -> None:
        self.name = checked_name(name)
        self.module = checked_module(name, module, params)
        self.loss = loss
        given = None if reads is None else checked_names(name, "reads", reads)
        self.reads = declared_reads(loss, given, owner=f"problem '{name}': loss=", problem=name)
        self.optimizer = checked_optimizer(name, optimizer, self.module)
        self.hypergradient = checked_method(name, hypergradient)
        self.every = checked_count(name, "every", every, least=1)
        self.repeat = checked_count(name, "repeat", repeat, least=1)
        self.warmup = checked_count(name, "warmup", warmup, least=0)
        self.accumulate = checked_count(name, "accumulate", accumulate, least=1)
        self.start = start
        self.start_reads = None
        if start is not None:
            self.start_reads = declared_reads(start, owner=f"problem '{name}': start=")
        self.restart = checked_restart(name, start, restart)
        self.clip_norm = checked_clip_norm(name, clip_norm)
        self.constant = checked_names(name, "constant", constant)
        self.updates_buffers = checked_names(name, "updates_buffers", updates_buffers)
        self.project = checked_project(name, project)
        self.scheduler = checked_scheduler(name, scheduler, self.optimizer)
        self.scheduler_every = scheduler_every
        self.scheduler_metric = scheduler_metric

    def variables(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, for those that are trainable and held by the optimizer.

        Raises:
            ParameterError: there are none, or the optimizer holds parameters of another module.
        """
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        named = dict(self.module.named_parameters())
        foreign = held - {id(p) for p in named.values()}
        if foreign:
            raise ParameterError(
                f"problem '{self.name}': optimizer= holds {len(foreign)} parameter(s) that are not "
                "in its module; build it over this problem's own parameters. Tensors given as "
                "params= are cloned, so there pass a function, such as "
                "lambda params: torch.optim.SGD(params, 0.1)",
                problem=self.name,
            )
        for key, t in {**named, **dict(self.module.named_buffers())}.items():
            if is_lazy(t):
                raise ParameterError(
                    f"problem '{self.name}': '{key}' of a lazy module has no shape yet; call the "
                    "module once on a batch before declaring the problem",
                    problem=self.name,
                )
        for key, p in named.items():
            if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
                raise ParameterError(
                    f"problem '{self.name}': parameter '{key}' has gradient hooks, which do not "
                    "run on the copies that the engine differentiates; remove them, and use "
                    "clip_norm=, project= or the loss instead",
                    problem=self.name,
                )
        variables = {k: p for k, p in named.items() if p.requires_grad and id(p) in held}
        if not variables:
            raise ParameterError(
                f"problem '{self.name}': optimizer= holds no trainable parameter of its module "
                f"({len(named)} parameters, {len(held)} in the optimizer); build it over "
                "module.parameters() and leave requires_grad on for what is to be trained",
                problem=self.name,
            )
        return variables

    def answering_by(self, method: Hypergradient) -> Problem:
        """The same problem, its module and optimizer shared, with another method."""
        twin = copy.copy(self)
        twin.hypergradient = method
        return twin

    def __repr__(self) -> str:
        """The name and what the loss reads."""
        return f"Problem({self.name!r}, reads={self.reads.names})"
